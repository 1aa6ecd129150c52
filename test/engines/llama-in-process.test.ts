/**
 * llama.cpp in one's own process, with a real exporter: node-llama-cpp, which loads it for itself alone, and
 * llama-cpp-python, which calls it by address.
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
  startExporter,
} from '../pipeline/processes.ts'
import { library, pythonEnvironment, smolLm } from './llama/engine.ts'

const workspace = createWorkspace()
const trace = '4bf92f3577b34da6a3ce929d0e0e4c01'
const wait = { timeout: 20_000, interval: 200 }
let exporter: Exporter

beforeAll(async () => {
  exporter = await startExporter(workspace)
})

afterAll(() => {
  killAll()
  workspace.remove()
})

function completeInChild(environment: Readonly<Record<string, string>>) {
  const script = join(import.meta.dirname, 'node-llama-cpp/complete.js')
  const done = spawnSync(process.execPath, [script, smolLm, 'The capital of France is'], {
    encoding: 'utf8',
    env: { ...process.env, RING2_LLAMA_LIBRARY: '', ...environment },
  })
  expect(done.status, done.stderr).toBe(0)
  return JSON.parse(done.stdout) as { text: string; named: number | null }
}

test('A request of node-llama-cpp is captured under the trace it was named with, and answers the same', async () => {
  const without = completeInChild({})
  const captured = completeInChild({
    LD_PRELOAD: library,
    RING2_LLAMA_LIBRARY: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_HOOKS: 'resid_pre,token_ids',
    TRACEPARENT: `00-${trace}-00f067aa0ba902b7-01`,
  })
  expect(captured).toEqual({ text: without.text, named: 0 })
  await vi.waitFor(async () => {
    const answer = await get(`${exporter.url}/v1/traces/${trace}`)
    expect(answer.status).toBe(200)
    const { requests } = answer.json<{ requests: readonly Record<string, unknown>[] }>()
    const facts = { request_id: 'in-process', engine: 'llama.cpp', completeness: 'complete' }
    expect(requests).toMatchObject([facts])
    const tensor = await get(`${exporter.url}/v1/traces/${trace}/tensors/resid_pre/29?format=npy`)
    expect(tensor.status).toBe(200)
    expect(Buffer.from(tensor.bytes).subarray(10, 128).toString()).toMatch(/\(\d+, 576\)/)
  }, wait)
})

interface PythonAnswer {
  readonly tokens: readonly number[]
  readonly prompt: number
  readonly refused: string
}

function completeInPython(environment: Readonly<Record<string, string>>, ...more: string[]) {
  const script = join(import.meta.dirname, 'llama/complete.py')
  const words = [script, smolLm, 'The capital of France is', ...more]
  const own = { ...process.env, ...pythonEnvironment, RING2_LLAMA_LIBRARY: '' }
  const done = spawnSync(python, words, { encoding: 'utf8', env: { ...own, ...environment } })
  expect(done.status, done.stderr).toBe(0)
  return JSON.parse(done.stdout) as PythonAnswer
}

test('Requests of llama-cpp-python are captured without a preload, and all logits stay the same', async () => {
  const named = '4bf92f3577b34da6a3ce929d0e0e4c02'
  const without = completeInPython({})
  const captured = completeInPython({
    RING2_LLAMA_LIBRARY: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_HOOKS: 'resid_pre,token_ids',
    TRACEPARENT: `00-${named}-00f067aa0ba902b7-01`,
  })
  expect(captured).toEqual({ ...without, refused: 'RING2_E_REQUEST' })
  const { tokens, prompt } = captured
  await vi.waitFor(async () => {
    const { requests } = (await get(`${exporter.url}/v1/traces/${named}`)).json<{
      requests: readonly Record<string, unknown>[]
    }>()
    const facts = { request_id: 'python-1', engine: 'llama.cpp', completeness: 'complete' }
    expect(requests).toMatchObject([{ ...facts, tokens: tokens.length, prompt_tokens: prompt }])
    const listed = (await get(`${exporter.url}/v1/traces?q=python-2`)).json<{
      traces: readonly unknown[]
    }>()
    expect(listed.traces).toHaveLength(1)
    const ids = await get(`${exporter.url}/v1/traces/${named}/tensors/token_ids/-1?format=npy`)
    expect(ids.status).toBe(200)
    const bytes = Buffer.from(ids.bytes)
    const data = bytes.subarray(10 + bytes.readUInt16LE(8))
    const found = tokens.map((_, index) => data.readInt32LE(index * 4))
    expect(found).toEqual(tokens)
    expect(data.length).toBe(tokens.length * 4)
  }, wait)
})

test('ring2.llama_cpp behind llama_cpp, where it could capture nothing, says so at once', () => {
  expect(completeInPython({ RING2_LLAMA_LIBRARY: library }, 'late')).toEqual({
    late: expect.stringMatching(/^RING2_E_NATIVE_LIBRARY: expected ring2\.llama_cpp .* first/),
  })
})
