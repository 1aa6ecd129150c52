/**
 * An unmodified vLLM server with the plugin, over HTTP with streaming clients at the same time, through the
 * real exporter: every request's tensors are those that Transformers computes for its tokens.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  python,
  startExporter,
} from '../pipeline/processes.ts'
import { complete, startVllm, type Vllm } from './vllm/server.ts'

// Float32 through other kernels and in another order of sums, relative to a tensor's largest number.
const tolerance = 5e-5
const layers = 4
const answerTokens = 4

const long = 'Why is the sky blue on a clear summer day, and red in the evening? '.repeat(6)
const prompts = [long, 'Hi', 'Name three colors of the rainbow.', 'Once upon a time there was']

interface Asked {
  readonly name: string
  readonly trace: string
  readonly span: string
  readonly prompt: string
}

const asked: readonly Asked[] = prompts.map((prompt, index) => ({
  name: `asked-${index}`,
  trace: `${index + 1}af7651916cd43dd8448eb211c80319c`,
  span: `${index + 1}7ad6b7169203331`,
  prompt,
}))
const again: Asked = {
  ...(asked[0] as Asked),
  name: 'again',
  trace: '9af7651916cd43dd8448eb211c80319c',
}

interface Compared {
  readonly requests: readonly string[]
  readonly compared: number
  readonly worst: number
  readonly start: number
  readonly ids: readonly number[]
  readonly complete: boolean
}

const workspace = createWorkspace()
let exporter: Exporter
let server: Vllm
let compared: readonly Compared[]

function ask({ name, trace, span, prompt }: Asked) {
  const headers = { traceparent: `00-${trace}-${span}-01`, 'x-request-id': name }
  return complete(server, { prompt, max_tokens: answerTokens }, headers)
}

interface Trace {
  readonly completeness: string
  readonly requests: readonly { request_id: string; completeness: string; steps: number }[]
}

async function traceOf(id: string): Promise<Trace | null> {
  const answer = await get(`${exporter.url}/v1/traces/${id}`)
  return answer.status === 200 ? answer.json<Trace>() : null
}

function compare(traces: readonly string[]): readonly Compared[] {
  const script = join(import.meta.dirname, 'vllm/compare.py')
  const done = spawnSync(python, [script, exporter.url, server.model, ...traces], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  if (done.status !== 0) throw new Error(`compare.py ended with ${done.status}:\n${done.stderr}`)
  return JSON.parse(done.stdout) as Compared[]
}

beforeAll(async () => {
  exporter = await startExporter(workspace)
  server = await startVllm(
    workspace,
    {
      RING2_VLLM_SEGMENT: 'vllm',
      RING2_VLLM_HOOKS:
        'hidden-states,resid_mid,resid_final,q,z,mlp_out,logits,token-ids,pattern[0,2]',
    },
    ['--enforce-eager', '--max-num-batched-tokens', '64', '--block-size', '32'],
  )
  await Promise.all(asked.map(ask))
  await ask(again)
  const traces = [...asked, again].map(({ trace }) => trace)
  await vi.waitUntil(
    async () => {
      const found = await Promise.all(traces.map(traceOf))
      return found.every((one) => one?.requests.every((r) => r.completeness !== 'open') ?? false)
    },
    { timeout: 60_000, interval: 300 },
  )
  compared = compare(traces)
}, 480_000)

afterAll(async () => {
  await server?.stop()
  killAll()
  workspace.remove()
})

describe('requests of streaming clients at the same time', () => {
  test('are found by the trace of their own caller, under the id that the client was told', () => {
    expect(compared.map(({ requests }) => requests)).toEqual(
      [...asked, again].map(({ name }) => [`cmpl-${name}-0`]),
    )
  })

  test('are complete', async () => {
    for (const { trace } of [...asked, again]) {
      const found = await traceOf(trace)
      expect(found?.requests.map(({ completeness }) => completeness)).toEqual(['complete'])
    }
    expect(compared.every(({ complete }) => complete)).toBe(true)
  })

  test('have the tensors that Transformers computes for their tokens', () => {
    const perRequest = 5 * layers + 3
    expect(compared.map(({ compared: count }) => count)).toEqual(compared.map(() => perRequest))
    for (const { worst } of compared) expect(worst).toBeLessThan(tolerance)
  })

  test('have only the tokens that were computed, when the rest was in the prefix cache', () => {
    const [first, , , , repeated] = compared
    expect(compared.slice(0, asked.length).map(({ start }) => start)).toEqual([0, 0, 0, 0])
    expect(repeated?.start).toBeGreaterThan(0)
    expect((repeated?.start ?? 1) % 32).toBe(0)
    expect(repeated?.ids).toEqual(first?.ids)
  })
})
