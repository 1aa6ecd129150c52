/**
 * What is wanted of a llama-server, changed while it serves; a ring that nobody drains; and a user's own
 * callback that throws. A tiny model with random weights says the same throughout.
 */
import { spawnSync } from 'node:child_process'
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
import { keptOf, matrixOf } from './llama/arrays.ts'
import {
  type Completion,
  complete,
  killEngines,
  library,
  nativeEnvironment,
  type Running,
  startLlamaServer,
  writeMixture,
} from './llama/engine.ts'

const wait = { timeout: 30_000, interval: 200 }
const flags = ['-c', '512', '-np', '2']
const steps = 100
const workspace = createWorkspace()
const model = join(workspace.root, 'model.gguf')
let plain: Completion
let exporter: Exporter
let full: Running
/** Of the server whose ring nobody drained, before the exporter came. */
const undrained: Completion[] = []

const traceOf = (digits: string) => `4bf92f3577b34da6a3ce929d0e0e50${digits}`

function serve(name: string, more: Readonly<Record<string, string>> = {}): Promise<Running> {
  const environment = {
    LD_PRELOAD: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_SEGMENT: name,
    RING2_LLAMA_HOOKS: 'all',
    RING2_LLAMA_CONTROL: join(workspace.root, name),
  }
  return startLlamaServer(flags, { ...environment, ...more }, model)
}

function ask(url: string): Promise<Completion> {
  const more = { n_predict: steps, ignore_eos: true, id_slot: 0, cache_prompt: false }
  return complete(url, 'once upon a time', {}, more)
}

async function askAs(server: Running, name: string, trace: string): Promise<Completion> {
  const control = join(workspace.root, name)
  const words = `begin 0 request-${trace.slice(-2)} 00-${trace}-00f067aa0ba902b7-01`
  expect(await tellLibrary(control, words)).toBeNull()
  const answer = await ask(server.url)
  expect(await tellLibrary(control, 'end 0')).toBeNull()
  return answer
}

async function put(policy: Readonly<Record<string, unknown>>): Promise<void> {
  const answer = await fetch(`${exporter.url}/v1/policy`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(policy),
  })
  expect(answer.status).toBe(200)
}

interface Ring {
  readonly segment: string
  readonly losses: readonly { readonly reason: string; readonly records: number }[]
}

async function ringOf(segment: string): Promise<Ring> {
  const { segments } = (await get(`${exporter.url}/v1/rings`)).json<{ segments: Ring[] }>()
  const found = segments.find((one) => one.segment === segment)
  if (found === undefined) throw new Error(`no ring ${segment} of ${JSON.stringify(segments)}`)
  return found
}

beforeAll(async () => {
  writeMixture('llama', model)
  const server = await startLlamaServer(flags, {}, model)
  plain = await ask(server.url)
  expect(plain.tokens).toHaveLength(steps)
  await server.stop()
  full = await serve('full', { RING2_LLAMA_PAYLOAD_MB: '1' })
  for (let round = 0; round < 3; ++round) undrained.push(await ask(full.url))
  exporter = await startExporter(workspace)
})

afterAll(() => {
  killEngines()
  killAll()
  workspace.remove()
})

test('A ring that nobody drains is filled, counted, and the engine says the same; then all is well', async () => {
  expect(undrained).toEqual([plain, plain, plain])
  const losses = await vi.waitFor(async () => (await ringOf('full')).losses, wait)
  expect(losses.map(({ reason }) => reason)).toContain('payload_full')
  expect(losses.find(({ reason }) => reason === 'payload_full')?.records).toBeGreaterThan(1000)

  // What nobody waits for leaves room for what comes next.
  await put({ tensors: ['resid_pre', 'token_ids'], stats: [] })
  expect(await askAs(full, 'full', traceOf('01'))).toEqual(plain)
  const kept = await keptOf(exporter, traceOf('01'))
  expect(kept).toMatchObject({ completeness: 'complete', steps })
  const residual = await matrixOf(exporter, traceOf('01'), 'resid_pre', 1)
  expect(residual.shape).toEqual([kept.tokens, 64])
  expect((await ringOf('full')).losses).toEqual(losses)
  await full.stop()
})

test('Nothing is written while nothing is wanted, and again when it is, while the server serves', async () => {
  await put({})
  const server = await serve('switched')
  expect(await askAs(server, 'switched', traceOf('11'))).toEqual(plain)
  expect(await keptOf(exporter, traceOf('11'))).toMatchObject({ completeness: 'complete', steps })
  await put({ stats: [], tensors: [] })
  expect(await askAs(server, 'switched', traceOf('12'))).toEqual(plain)
  await put({ tensors: ['resid_mid', 'token_ids'], stats: [], layers: ['resid_mid[1]'] })
  expect(await askAs(server, 'switched', traceOf('13'))).toEqual(plain)
  const kept = await keptOf(exporter, traceOf('13'))
  expect(kept).toMatchObject({ completeness: 'complete', steps })
  const one = await matrixOf(exporter, traceOf('13'), 'resid_mid', 1)
  expect(one.shape).toEqual([kept.tokens, 64])
  const other = await get(`${exporter.url}/v1/traces/${traceOf('13')}/tensors/resid_mid/0`)
  expect(other.status).toBe(404)
  // It was before the last request, which is there.
  expect((await get(`${exporter.url}/v1/traces/${traceOf('12')}`)).status).toBe(404)
  expect((await ringOf('switched')).losses).toEqual([])
  await server.stop()
})

test('An exception of a user’s own callback goes to its caller, and what follows is captured', async () => {
  const program = join(workspace.root, 'throwing')
  const source = join(import.meta.dirname, 'llama/throwing.cc')
  const { LIBRARIES, ...environment } = nativeEnvironment
  const words = ['-std=c++20', '-O1', '-rdynamic', '-o', program, source, `-L${LIBRARIES}`]
  const linked = ['-lllama', '-Wl,--allow-shlib-undefined', `-Wl,-rpath,${LIBRARIES}`, '-ldl']
  const built = spawnSync(process.env.CXX ?? 'c++', [...words, ...linked], { encoding: 'utf8' })
  expect(built.stderr).toBe('')
  const run = (more: Readonly<Record<string, string>>) => {
    const env = { ...process.env, ...environment, ...more }
    const done = spawnSync(program, [model], { encoding: 'utf8', env })
    expect(done.status, done.stderr).toBe(0)
    return done.stdout
  }
  const without = run({})
  expect(without).toMatch(/^thrown: not this one\n(-?\d+\.\d+ ){8}\nasked [1-9]\d+\n$/)
  await put({})
  const captured = run({
    LD_PRELOAD: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_HOOKS: 'resid_pre,token_ids',
    TRACEPARENT: `00-${traceOf('21')}-00f067aa0ba902b7-01`,
  })
  expect(captured).toBe(without)
  expect(await keptOf(exporter, traceOf('21'))).toMatchObject({ tokens: 4, steps: 1 })
})
