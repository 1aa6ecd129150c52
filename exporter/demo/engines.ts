/**
 * The engines that the demo can run, each as a user would: a process with ring2 in it, and how it is
 * asked. What they send goes through the same exporter.
 */
import { type Ask, askChatService } from './client.ts'
import { startLlamaServer, startVllm } from './engine-servers.ts'
import { askOpenAi } from './openai-client.ts'
import { type Parts, type ServiceSettings, startService } from './parts.ts'

export const engineNames = ['transformers', 'vllm', 'llama.cpp'] as const

export type EngineName = (typeof engineNames)[number]

export interface RunningEngine {
  /** Where it takes prompts. */
  readonly address: string
  readonly ask: Ask
}

export interface Engine {
  /** What starts, in words. */
  readonly title: string
  /** Whether a layer of it can be broken on purpose. */
  readonly breakable: boolean
  /**
   * How far its tensors may be from those of Transformers, relative to the largest magnitude: another
   * order of additions, other kernels, quantised weights. Null where they are compared with what the
   * process itself held, byte for byte.
   */
  readonly tolerance: number | null
  start(parts: Parts, settings: ServiceSettings): Promise<RunningEngine>
}

export const engines: Readonly<Record<EngineName, Engine>> = {
  transformers: {
    title: 'the chat service with SmolLM2-135M-Instruct',
    breakable: true,
    tolerance: null,
    async start(parts, settings) {
      const address = await startService(parts, settings)
      return { address, ask: (question) => askChatService(address, question) }
    },
  },
  vllm: {
    title: 'vLLM with SmolLM2-135M-Instruct',
    breakable: false,
    tolerance: 1e-3,
    async start(parts, settings) {
      const address = await startVllm(parts, settings)
      // The server sends a span of its own.
      return { address, ask: (question) => askOpenAi(address, question, 2) }
    },
  },
  'llama.cpp': {
    title: 'llama-server with SmolLM2-135M-Instruct (4 bit)',
    breakable: false,
    tolerance: 0.1,
    async start(parts) {
      const address = await startLlamaServer(parts)
      return { address, ask: (question) => askOpenAi(address, question, 1) }
    },
  },
}
