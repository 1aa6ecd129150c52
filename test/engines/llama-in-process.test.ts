/** node-llama-cpp in a process of its own, which loads llama.cpp for itself alone, with a real exporter. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  startExporter,
} from '../pipeline/processes.ts'
import { library, smolLm } from './llama/engine.ts'

const workspace = createWorkspace()
const trace = '4bf92f3577b34da6a3ce929d0e0e4c01'
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
  await vi.waitFor(
    async () => {
      const answer = await get(`${exporter.url}/v1/traces/${trace}`)
      expect(answer.status).toBe(200)
      const { requests } = answer.json<{ requests: readonly Record<string, unknown>[] }>()
      const facts = { request_id: 'in-process', engine: 'llama.cpp', completeness: 'complete' }
      expect(requests).toMatchObject([facts])
      const tensor = await get(`${exporter.url}/v1/traces/${trace}/tensors/resid_pre/29?format=npy`)
      expect(tensor.status).toBe(200)
      expect(Buffer.from(tensor.bytes).subarray(10, 128).toString()).toMatch(/\(\d+, 576\)/)
    },
    { timeout: 60_000, interval: 200 },
  )
})
