/**
 * An unmodified vLLM server with the plugin, over HTTP with streaming clients at the same time, through the
 * real exporter: every request's tensors are those that Transformers computes for its tokens, and answers are
 * those of a server without the plugin.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  python,
  segmentFiles,
  startExporter,
} from '../pipeline/processes.ts'
import {
  type Completion,
  complete,
  cutModel,
  killServers,
  leaveEarly,
  readyMillis,
  startVllm,
  type Vllm,
} from './vllm/server.ts'

// Float32 through other kernels and in another order of sums, relative to a tensor's largest number.
const tolerance = 5e-5
const layers = 4
const answerTokens = 4
const blockTokens = 32
const wait = { timeout: 120_000, interval: 300 }

const long = 'Why is the sky blue on a clear summer day, and red in the evening? '.repeat(6)
const prompts = [long, 'Hi', 'Name three colors of the rainbow.', 'Once upon a time there was']

interface Asked {
  readonly name: string
  readonly trace: string
  readonly prompt: string
}

const question = (name: string, digit: string, prompt: string): Asked => ({
  name,
  trace: `${digit}af7651916cd43dd8448eb211c80319c`,
  prompt,
})
const asked = prompts.map((prompt, index) => question(`asked-${index}`, String(index + 1), prompt))
const again = question('again', '9', long)

interface Request {
  readonly request_id: string
  readonly engine: string
  readonly completeness: string
  readonly ended_at: string | null
  readonly tokens: number
  readonly prompt_tokens: number
  readonly details: { readonly parent_span_id: string | null }
}

interface Compared {
  readonly requests: readonly string[]
  readonly tensors: readonly string[]
  readonly compared: number
  readonly worst: number
  readonly start: number
  readonly ids: readonly number[]
}

const workspace = createWorkspace()
let model: string
let exporter: Exporter
let server: Vllm
let plain: Vllm
let answers: readonly Completion[]
let compared: readonly Compared[]

const span = 'b7ad6b7169203331'
const headersOf = ({ name, trace }: Asked) => ({
  traceparent: `00-${trace}-${span}-01`,
  'x-request-id': name,
})

function ask(to: Vllm, one: Asked): Promise<Completion> {
  return complete(to, { prompt: one.prompt, max_tokens: answerTokens }, headersOf(one))
}

async function askAll(to: Vllm): Promise<readonly Completion[]> {
  const together = await Promise.all(asked.map((one) => ask(to, one)))
  return [...together, await ask(to, again)]
}

/** The requests of a trace, once all of them have ended. */
async function kept({ trace }: Asked): Promise<readonly Request[]> {
  return vi.waitFor(async () => {
    const answer = await get(`${exporter.url}/v1/traces/${trace}`)
    expect(answer.status).toBe(200)
    const { requests } = answer.json<{ readonly requests: readonly Request[] }>()
    expect(requests.map(({ ended_at }) => ended_at)).toEqual([expect.any(String)])
    return requests
  }, wait)
}

function compare(): readonly Compared[] {
  const script = join(import.meta.dirname, 'vllm/compare.py')
  const traces = [...asked, again].map(({ trace }) => trace)
  const words = [script, exporter.url, model, String(answerTokens), ...traces]
  const done = spawnSync(python, words, { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`compare.py ended with ${done.status}:\n${done.stderr}`)
  return JSON.parse(done.stdout) as Compared[]
}

async function setPolicy(policy: object): Promise<void> {
  const answer = await fetch(`${exporter.url}/v1/policy`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(policy),
  })
  expect(answer.status).toBe(200)
}

beforeAll(async () => {
  model = cutModel(workspace)
  exporter = await startExporter(workspace)
  const settings = {
    RING2_VLLM_DIRECTORY: workspace.segments,
    RING2_VLLM_SEGMENT: 'vllm',
    RING2_VLLM_HOOKS:
      'hidden-states,resid_mid,resid_final,q,z,mlp_out,logits,token-ids,pattern[0,2]',
  }
  const starts = [startVllm(model, settings), startVllm(model, { RING2_VLLM: 'off' })] as const
  ;[server, plain] = await Promise.all(starts)
  answers = await askAll(server)
  for (const one of [...asked, again]) await kept(one)
  compared = compare()
}, readyMillis + 300_000)

afterAll(() => {
  killServers()
  killAll()
  workspace.remove()
})

test('Answers and their log probabilities are those of a server without the plugin', async () => {
  expect(answers.map(({ logprobs }) => logprobs.length)).toEqual(answers.map(() => answerTokens))
  expect(await askAll(plain)).toEqual(answers)
}, 120_000)

test('Requests are joined to the trace of their own caller, under the id that it was told, complete', async () => {
  for (const [index, one] of [...asked, again].entries()) {
    expect(await kept(one)).toMatchObject([
      {
        request_id: `${answers[index]?.id}-0`,
        engine: 'vllm',
        completeness: 'complete',
        tokens: compared[index]?.ids.length,
        prompt_tokens: (compared[index]?.ids.length ?? 0) - answerTokens + 1,
        details: { parent_span_id: span },
      },
    ])
    expect(answers[index]?.id).toBe(`cmpl-${one.name}`)
  }
}, 120_000)

test('Tensors are those that Transformers computes for the tokens, computed patterns among them', () => {
  const hooks = 'final_logits mlp_out pattern q resid_final resid_mid resid_pre token_ids z'
  for (const one of compared) {
    expect(one.tensors.join(' ')).toBe(hooks)
    expect(one.compared).toBe(5 * layers + 3 + 2)
    expect(one.worst).toBeLessThan(tolerance)
  }
})

test('Tokens from the prefix cache are not computed, so that only the others have rows', () => {
  const [first, , , , repeated] = compared
  expect(compared.slice(0, asked.length).map(({ start }) => start)).toEqual([0, 0, 0, 0])
  expect(repeated?.start).toBeGreaterThan(0)
  expect((repeated?.start ?? 1) % blockTokens).toBe(0)
  expect(repeated?.ids).toEqual(first?.ids)
})

test('A policy that wants nothing leaves nothing of a request, until it is replaced', async () => {
  const unseen = question('unseen', 'a', 'Hi')
  const seen = question('seen', 'b', 'Hi')
  await setPolicy({ stats: [], tensors: [] })
  const answer = await ask(server, unseen)
  await setPolicy({})
  expect((await ask(server, seen)).logprobs).toEqual(answer.logprobs)
  expect(await kept(seen)).toMatchObject([{ completeness: 'complete' }])
  expect((await get(`${exporter.url}/v1/traces/${unseen.trace}`)).status).toBe(404)
}, 120_000)

test('A request whose client goes away ends as aborted, with the tokens that were computed', async () => {
  const left = question('left', 'c', 'Hi')
  await leaveEarly(server, { prompt: left.prompt, max_tokens: 250 }, headersOf(left))
  const [request] = await kept(left)
  const reasons = ['the request ended with aborted']
  expect(request).toMatchObject({ completeness: 'unknown', details: { completeness: { reasons } } })
  expect(request?.tokens).toBeLessThan(250)
}, 120_000)

test('A server that is told to stop closes its segment, which is drained and removed', async () => {
  await server.stop()
  await vi.waitFor(() => expect(segmentFiles(workspace)).toEqual([]), wait)
  const messages = exporter.logs().filter(({ segment }) => segment === 'vllm')
  expect(messages.at(-1)?.msg).toBe('a segment has ended and was drained to the end')
}, 240_000)
