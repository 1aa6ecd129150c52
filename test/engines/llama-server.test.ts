/**
 * A stock llama-server over HTTP with concurrent streaming clients, ring2's library preloaded, and a real
 * exporter: outputs, traces, completeness, and tensors against what another eval callback saw.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  startExporter,
} from '../pipeline/processes.ts'
import {
  type Completion,
  complete,
  detokenize,
  killEngines,
  library,
  type Running,
  startLlamaServer,
  startProxy,
  tokenize,
} from './llama/engine.ts'

const wait = { timeout: 120_000, interval: 200 }
const prompts = [
  'The capital of France is',
  'Once upon a time there was a small town',
  'Water boils at a temperature of',
  'The capital of France is', // the same tokens at the same positions at the same time
  'A short poem about the sea and the moon:',
  'Two and two are',
]
const hooks = 'resid_pre,resid_mid,q,z,resid_final,final_logits,token_ids,pattern'

const workspace = createWorkspace()
const reference = join(workspace.root, 'reference.so')
const referenceFile = join(workspace.root, 'reference.bin')
const control = join(workspace.root, 'control')
let exporter: Exporter
let server: Running
let proxy: Running
let plain: readonly Completion[]

const traceOf = (index: number) => `4bf92f3577b34da6a3ce929d0e0e47${`${10 + index}`}`
const headersOf = (index: number) => ({
  'x-request-id': `client-${index}`,
  traceparent: `00-${traceOf(index)}-00f067aa0ba902b7-01`,
})

const environment = (segment: string, more: Readonly<Record<string, string>> = {}) => ({
  LD_PRELOAD: library,
  RING2_LLAMA_DIRECTORY: workspace.segments,
  RING2_LLAMA_SEGMENT: segment,
  RING2_LLAMA_HOOKS: hooks,
  ...more,
})

function compileReference(): void {
  const source = join(import.meta.dirname, 'llama/reference.c')
  const words = ['-shared', '-fPIC', '-O1', '-o', reference, source, '-ldl']
  const { status, stderr } = spawnSync(process.env.CC ?? 'cc', words, { encoding: 'utf8' })
  expect(stderr).toBe('')
  expect(status).toBe(0)
}

async function oneByOne(url: string): Promise<readonly Completion[]> {
  const answers: Completion[] = []
  for (const prompt of prompts) answers.push(await complete(url, prompt, {}, { id_slot: 0 }))
  return answers
}

beforeAll(async () => {
  compileReference()
  exporter = await startExporter(workspace)
  const flags = ['-c', '2048', '-np', '4']
  const without = await startLlamaServer(flags)
  plain = await oneByOne(without.url)
  expect(await without.stop()).toBe(0)
  server = await startLlamaServer(flags, {
    ...environment('chat'),
    LD_PRELOAD: `${reference}:${library}`,
    RING2_LLAMA_CONTROL: control,
    RING2_REFERENCE: ',l_out-4,ffn_inp-3,',
    RING2_REFERENCE_FILE: referenceFile,
  })
  proxy = await startProxy(server.url, control)
})

afterAll(() => {
  killEngines()
  killAll()
  workspace.remove()
})

interface TraceView {
  readonly requests: readonly {
    readonly request_id: string
    readonly engine: string
    readonly completeness: string
    readonly ended_at: string | null
    readonly tokens: number
    readonly prompt_tokens: number
  }[]
}

async function kept(trace: string): Promise<TraceView> {
  return vi.waitFor(async () => {
    const answer = await get(`${exporter.url}/v1/traces/${trace}`)
    expect(answer.status).toBe(200)
    const view = answer.json<TraceView>()
    expect(view.requests[0]?.ended_at).toEqual(expect.any(String))
    return view
  }, wait)
}

/** The stitched tensor as bytes: what is behind the header of a .npy file. */
async function fetched(trace: string, hook: string, layer: number): Promise<Buffer> {
  const url = `${exporter.url}/v1/traces/${trace}/tensors/${hook}/${layer}?format=npy`
  const answer = await vi.waitFor(async () => {
    const found = await get(url)
    expect(
      found.status,
      `${hook} ${layer}: ${Buffer.from(found.bytes).toString().slice(0, 300)}`,
    ).toBe(200)
    return found
  }, wait)
  const bytes = Buffer.from(answer.bytes)
  return bytes.subarray(10 + bytes.readUInt16LE(8))
}

const int32 = (bytes: Buffer) =>
  Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readInt32LE(index * 4))

interface Dumped {
  readonly name: string
  readonly rows: number
  readonly bytes: Buffer
}

function dumped(): Dumped[] {
  const file = readFileSync(referenceFile)
  const found: Dumped[] = []
  for (let at = 0; at < file.length; ) {
    const name = file
      .subarray(at, at + 64)
      .toString('latin1')
      .replaceAll('\0', '')
    const size = Number(file.readBigInt64LE(at + 80))
    const rows = Number(file.readBigInt64LE(at + 72))
    found.push({ name, rows, bytes: file.subarray(at + 88, at + 88 + size) })
    at += 88 + size
  }
  return found
}

test('Answers and their probabilities are the same with the library as without', async () => {
  expect(await oneByOne(server.url)).toEqual(plain)
})

test('Requests of concurrent clients are joined with their traces, complete, with their own tokens', async () => {
  const answers = await Promise.all(
    prompts.map((prompt, index) =>
      complete(proxy.url, prompt, headersOf(index), { cache_prompt: false }),
    ),
  )
  expect(answers.map(({ text }) => text)).toEqual(plain.map(({ text }) => text))
  for (const [index, prompt] of prompts.entries()) {
    const { requests } = await kept(traceOf(index))
    const own = await tokenize(server.url, prompt)
    const fed = [...own, ...(answers[index]?.tokens ?? [])].slice(0, -1)
    expect(requests).toMatchObject([
      {
        request_id: `client-${index}`,
        engine: 'llama.cpp',
        completeness: 'complete',
        tokens: fed.length,
        prompt_tokens: own.length,
      },
    ])
    expect(int32(await fetched(traceOf(index), 'token_ids', -1))).toEqual(fed)
  }
})

test('Captured tensors are bit for bit what another callback of the same graph saw', async () => {
  const before = dumped().length
  const headers = { 'x-request-id': 'alone', traceparent: `00-${traceOf(50)}-00f067aa0ba902b7-01` }
  await complete(proxy.url, 'All happy families are alike', headers, { cache_prompt: false })
  await kept(traceOf(50))
  const seen = dumped().slice(before)
  const joined = (name: string) =>
    Buffer.concat(seen.filter((one) => one.name === name).map(({ bytes }) => bytes))
  const stream = await fetched(traceOf(50), 'resid_pre', 5)
  expect(stream.length).toBeGreaterThan(10 * 576 * 4)
  expect(stream.length).toBe(joined('l_out-4').length)
  expect(stream.equals(joined('l_out-4'))).toBe(true)
  expect((await fetched(traceOf(50), 'resid_mid', 3)).equals(joined('ffn_inp-3'))).toBe(true)
})

interface TokensView {
  readonly vocabulary: string
  readonly tokens: readonly { readonly id: number; readonly text: string | null }[]
}

test('The view of tokens shows the texts of their ids, as the server itself writes them', async () => {
  const headers = { 'x-request-id': 'texts', traceparent: `00-${traceOf(51)}-00f067aa0ba902b7-01` }
  const prompt = '<|im_start|>A "naïve" \\ parrot:\n\t🦜 says'
  await complete(proxy.url, prompt, headers, { cache_prompt: false })
  await kept(traceOf(51))
  const view = await vi.waitFor(async () => {
    const found = (await get(`${exporter.url}/v1/traces/${traceOf(51)}/tokens`)).json<TokensView>()
    expect(found.vocabulary).toBe('known')
    return found
  }, wait)
  const own = await Promise.all(view.tokens.map(({ id }) => detokenize(server.url, id)))
  expect(own.slice(0, 3)).toEqual(['<|im_start|>', 'A', ' "'])
  // A part of a character has the piece of the vocabulary, which is no text of its own.
  const shown = view.tokens.map(({ text }, index) =>
    own[index]?.includes('\ufffd') && text !== null && text !== '' ? own[index] : text,
  )
  expect(shown).toEqual(own)
  expect(view.tokens.some(({ text }) => text?.includes('\ufffd'))).toBe(false)
})

test('A server that is told to stop does so in order, and its segment is drained', async () => {
  await proxy.stop()
  expect(await server.stop()).toBe(0)
  expect(server.log()).not.toMatch(/ring2: .*error/)
})
