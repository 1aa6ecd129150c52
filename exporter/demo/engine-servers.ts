/**
 * Inference servers as they come, with ring2 beside them: vLLM by its plugin, llama-server by a preloaded
 * library. Neither is changed.
 */
import { join } from 'node:path'
import { Ring2Error } from '../errors.ts'
import { freePort } from './http.ts'
import { modelFolder, type Parts, python, type ServiceSettings } from './parts.ts'
import { startProcess } from './processes.ts'

/** vLLM's own server of OpenAI's API; its address. */
export async function startVllm(parts: Parts, { endpoint }: ServiceSettings): Promise<string> {
  const port = await freePort()
  const { process: server } = await startProcess({
    name: 'vllm-server',
    program: python(),
    arguments: [
      ...['-m', 'vllm.entrypoints.openai.api_server'],
      ...['--model', modelFolder(), '--served-model-name', 'SmolLM2-135M-Instruct'],
      ...['--host', '127.0.0.1', '--port', String(port)],
      // The weights are small: float32 is compared with Transformers, and starts without compiling.
      ...['--dtype', 'float32', '--max-model-len', '1024', '--enforce-eager'],
      ...['--otlp-traces-endpoint', endpoint],
    ],
    environment: {
      RING2_VLLM_SEGMENT: parts.segment,
      RING2_VLLM_PATTERN_QUERIES: '1',
      VLLM_CPU_KVCACHE_SPACE: '1',
      VLLM_NO_USAGE_STATS: '1',
      OTEL_EXPORTER_OTLP_TRACES_INSECURE: 'true',
      OTEL_SERVICE_NAME: 'vllm',
      HF_HUB_OFFLINE: '1',
      // With more threads than free cores, decoding on a busy machine is several times slower.
      OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? '1',
    },
    logs: parts.folder,
    readyOn: 'stderr',
    ready: (line) => (line.includes('Application startup complete') ? line : undefined),
    endBy: 'SIGTERM',
  })
  parts.processes.push(server)
  return `http://127.0.0.1:${port}`
}

/** A stock llama-server with ring2's library preloaded, behind the proxy that names its requests; the proxy's address. */
export async function startLlamaServer(parts: Parts): Promise<string> {
  const [port, proxyPort] = [await freePort(), await freePort()]
  const control = join(parts.folder, 'llama-control')
  const address = `http://127.0.0.1:${port}`
  const { process: server } = await startProcess({
    name: 'llama-server',
    program: fromSetup('RING2_LLAMA_SERVER', 'a llama-server that is linked dynamically'),
    arguments: [
      ...['-m', fromSetup('RING2_LLAMA_MODEL', 'a GGUF file')],
      ...['--host', '127.0.0.1', '--port', String(port)],
      ...['-t', '1', '-tb', '1', '-c', '4096', '-np', '4'],
    ],
    environment: {
      LD_PRELOAD: fromSetup('RING2_LLAMA_LIBRARY', 'libring2_llama.so'),
      LD_LIBRARY_PATH: process.env.RING2_LLAMA_GGML ?? '',
      RING2_LLAMA_SEGMENT: parts.segment,
      RING2_LLAMA_CONTROL: control,
    },
    logs: parts.folder,
    readyOn: 'stderr',
    ready: (line) => (line.includes('listening on http') ? line : undefined),
    endBy: 'SIGTERM',
  })
  parts.processes.push(server)
  const { process: proxy } = await startProcess({
    name: 'llama-proxy',
    program: join(import.meta.dirname, '..', '..', 'bin', 'ring2-exporter'),
    arguments: [
      ...['llama-proxy', '--upstream', address, '--control', control],
      ...['--port', String(proxyPort)],
    ],
    environment: {},
    logs: parts.folder,
    readyOn: 'stderr',
    ready: (line) => (line.includes('listens on') ? line : undefined),
    endBy: 'SIGTERM',
  })
  parts.processes.push(proxy)
  return `http://127.0.0.1:${proxyPort}`
}

function fromSetup(variable: string, what: string): string {
  const value = process.env[variable]
  if (value !== undefined && value !== '') return value
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `${variable} to name ${what}`,
    actual: 'not set',
    action: 'Run `npm run demo -- --engine llama.cpp` in the repository: it builds or installs it.',
  })
}
