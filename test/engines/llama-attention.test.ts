/**
 * Attention of a llama-server with a cache for each slot: computed beside flash attention, and taken from
 * the engine without it. Both are of the same tokens, and rows of permuted batches are their requests' own.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { tellLibrary } from '../../exporter/llama/channel.ts'
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
  killEngines,
  library,
  type Running,
  startLlamaServer,
  tokenize,
} from './llama/engine.ts'

const wait = { timeout: 120_000, interval: 200 }
const prompts = [
  'The capital of France is',
  'One, two, three, four, five, six,',
  'The capital of France is',
]
const layer = 0
/** Queries are rounded to float16 by the engine, and not here. The first layer, as later ones differ before. */
const tolerance = 2e-3

const workspace = createWorkspace()
let exporter: Exporter

interface Round {
  readonly server: Running
  readonly answers: readonly Completion[]
  readonly trace: (index: number) => string
}

async function serve(name: string, digit: string, flags: readonly string[]): Promise<Round> {
  const control = join(workspace.root, name)
  const server = await startLlamaServer(['-c', '1536', '-np', '3', '--no-kv-unified', ...flags], {
    LD_PRELOAD: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_SEGMENT: name,
    RING2_LLAMA_HOOKS: 'token_ids,pattern',
    RING2_LLAMA_CONTROL: control,
  })
  const trace = (index: number) => `4bf92f3577b34da6a3ce929d0e0e47${digit}${index}`
  const answers = await Promise.all(
    prompts.map(async (prompt, slot) => {
      const context = `00-${trace(slot)}-00f067aa0ba902b7-01`
      expect(await tellLibrary(control, `begin ${slot} ${name}-${slot} ${context}`)).toBeNull()
      const answer = await complete(server.url, prompt, {}, { id_slot: slot, cache_prompt: false })
      expect(await tellLibrary(control, `end ${slot}`)).toBeNull()
      return answer
    }),
  )
  expect(await tellLibrary(control, 'begin 999 x')).toMatch(/^error expected begin SLOT/)
  expect(await tellLibrary(control, 'begin 0 x 00-nothing')).toMatch(/^error expected a W3C/)
  expect(await tellLibrary(control, 'begin 0 x\0y')).toMatch(/^error expected a line without NUL/)
  return { server, answers, trace }
}

let flash: Round
let plain: Round

beforeAll(async () => {
  exporter = await startExporter(workspace)
  flash = await serve('flash', 'a', ['-fa', 'on'])
  plain = await serve('plain', 'b', ['-fa', 'off'])
})

afterAll(() => {
  killEngines()
  killAll()
  workspace.remove()
})

async function fetched(trace: string, hook: string, of: number): Promise<Buffer> {
  const url = `${exporter.url}/v1/traces/${trace}`
  await vi.waitFor(async () => {
    const view = (await get(url)).json<{ requests?: { ended_at: string | null }[] }>()
    expect(view.requests?.[0]?.ended_at).toEqual(expect.any(String))
  }, wait)
  const answer = await vi.waitFor(async () => {
    const found = await get(`${url}/tensors/${hook}/${of}?format=npy`)
    expect(found.status, Buffer.from(found.bytes).toString().slice(0, 300)).toBe(200)
    return found
  }, wait)
  return Buffer.from(answer.bytes)
}

function array(npy: Buffer) {
  const start = 10 + npy.readUInt16LE(8)
  const shape = /\(([\d, ]+)\)/.exec(npy.subarray(10, start).toString())?.[1] ?? ''
  const data = npy.subarray(start)
  return {
    shape: shape
      .split(',')
      .filter((part) => part.trim() !== '')
      .map(Number),
    data,
  }
}

const floats = (data: Buffer) =>
  Array.from({ length: data.length / 4 }, (_, index) => data.readFloatLE(index * 4))

/** Of [heads, queries, keys], the last queries. */
function lastQueries({ shape, data }: ReturnType<typeof array>, count: number): number[] {
  const [heads = 0, queries = 0, keys = 0] = shape
  expect(queries).toBeGreaterThanOrEqual(count)
  const all = floats(data)
  return Array.from({ length: heads }, (_, head) =>
    all.slice((head * queries + queries - count) * keys, (head + 1) * queries * keys),
  ).flat()
}

test('Rows of permuted batches are given to their own requests', async () => {
  for (const round of [flash, plain]) {
    for (const [index, prompt] of prompts.entries()) {
      const { data } = array(await fetched(round.trace(index), 'token_ids', -1))
      const ids = Array.from({ length: data.length / 4 }, (_, at) => data.readInt32LE(at * 4))
      const own = await tokenize(round.server.url, prompt)
      expect(ids).toEqual([...own, ...(round.answers[index]?.tokens ?? [])].slice(0, -1))
    }
  }
})

test('Attention computed beside flash attention is the engine’s own without it', async () => {
  expect(flash.answers.map(({ text }) => text)).toEqual(plain.answers.map(({ text }) => text))
  for (const index of prompts.keys()) {
    const computed = array(await fetched(flash.trace(index), 'pattern', layer))
    const own = array(await fetched(plain.trace(index), 'pattern', layer))
    expect([computed.shape[0], computed.shape[2]]).toEqual([own.shape[0], own.shape[2]])
    // In how many passes a prompt runs hangs on when the others arrive, and each pass has one query.
    const count = flash.answers[index]?.tokens.length ?? 0
    const [one, other] = [lastQueries(computed, count), lastQueries(own, count)]
    expect(one.length).toBe((own.shape[0] ?? 0) * count * (own.shape[2] ?? 0))
    expect(one.length).toBeGreaterThan(9 * 10)
    const worst = Math.max(...one.map((value, at) => Math.abs(value - (other[at] ?? Number.NaN))))
    expect(worst).toBeLessThan(tolerance)
  }
})
