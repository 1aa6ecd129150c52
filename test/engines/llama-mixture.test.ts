/**
 * Tiny mixtures of experts with random weights in a stock llama-server: which experts were chosen, with
 * which weights, and what comes out, with a real exporter.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { tellLibrary } from '../../exporter/llama/channel.ts'
import { createWorkspace, type Exporter, killAll, startExporter } from '../pipeline/processes.ts'
import { keptOf, matrixOf } from './llama/arrays.ts'
import {
  complete,
  killEngines,
  library,
  startLlamaServer,
  tokenize,
  writeMixture,
} from './llama/engine.ts'

const [experts, chosen, hidden, layers] = [8, 2, 64, 3]
const prompt = 'which experts'
const workspace = createWorkspace()
let exporter: Exporter

beforeAll(async () => {
  exporter = await startExporter(workspace)
})

afterAll(() => {
  killEngines()
  killAll()
  workspace.remove()
})

function softmax(values: readonly number[]): number[] {
  const most = Math.max(...values)
  const parts = values.map((value) => Math.exp(value - most))
  const sum = parts.reduce((before, part) => before + part, 0)
  return parts.map((part) => part / sum)
}

test.each([
  { architecture: 'qwen2moe', sumToOne: false, trace: '4bf92f3577b34da6a3ce929d0e0e4d01' },
  { architecture: 'llama', sumToOne: true, trace: '4bf92f3577b34da6a3ce929d0e0e4d02' },
])('The routing of $architecture is captured, and agrees with its logits', async (one) => {
  const model = join(workspace.root, `${one.architecture}.gguf`)
  writeMixture(one.architecture, model)
  const flags = ['-c', '256', '-np', '1']
  const without = await startLlamaServer(flags, {}, model)
  const plain = await complete(without.url, prompt)
  await without.stop()
  const control = join(workspace.root, one.architecture)
  const environment = {
    LD_PRELOAD: library,
    RING2_LLAMA_DIRECTORY: workspace.segments,
    RING2_LLAMA_SEGMENT: one.architecture,
    RING2_LLAMA_HOOKS: 'all',
    RING2_LLAMA_CONTROL: control,
  }
  const server = await startLlamaServer(flags, environment, model)
  const words = `${one.architecture} 00-${one.trace}-00f067aa0ba902b7-01`
  expect(await tellLibrary(control, `begin 0 ${words}`)).toBeNull()
  expect(await complete(server.url, prompt)).toEqual(plain)
  expect(await tellLibrary(control, 'end 0')).toBeNull()
  const tokens = (await tokenize(server.url, prompt)).length + plain.tokens.length - 1
  await server.stop()

  expect(await keptOf(exporter, one.trace)).toMatchObject({ tokens, completeness: 'complete' })
  for (const layer of Array.from({ length: layers - 1 }, (_, index) => index)) {
    const read = (hook: string) => matrixOf(exporter, one.trace, hook, layer)
    const logits = await read('router_logits')
    const ids = await read('topk_ids')
    const weights = await read('topk_weights')
    expect(logits.shape).toEqual([tokens, experts])
    expect(ids.shape).toEqual([tokens, chosen])
    expect(weights.shape).toEqual([tokens, chosen])
    expect((await read('mlp_out')).shape).toEqual([tokens, hidden])
    for (const [token, row] of logits.rows.entries()) {
      const order = row.map((_, expert) => expert).sort((a, b) => (row[b] ?? 0) - (row[a] ?? 0))
      const picked = ids.rows[token] ?? []
      expect(picked).toEqual(order.slice(0, chosen))
      const shares = picked.map((expert) => softmax(row)[expert] ?? Number.NaN)
      const whole = one.sumToOne ? shares.reduce((before, share) => before + share, 0) : 1
      for (const [place, share] of shares.entries()) {
        expect(weights.rows[token]?.[place]).toBeCloseTo(share / whole, 5)
      }
    }
  }
})
