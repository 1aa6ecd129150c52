/** All hooks of the catalogue from stock models to the store and back, and the examples that show some. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hooks } from '../../collector/hooks.gen.ts'
import {
  createWorkspace,
  type Exporter,
  killAll,
  python,
  repository,
  runPython,
  startExporter,
} from './processes.ts'

const workspace = createWorkspace()
let exporter: Exporter

afterAll(() => {
  killAll()
  workspace.remove()
})

beforeAll(async () => {
  exporter = await startExporter(workspace)
})

interface Found {
  readonly hooks: readonly string[]
  readonly wrong: readonly string[]
  readonly statistics: readonly string[]
}

test('every hook is stored bit for bit and measured as documented', () => {
  const words = [exporter.url, workspace.segments]
  const found: Record<string, Found> = JSON.parse(runPython('every_hook.py', words))
  const both = Object.values(found)
  expect(both.flatMap(({ wrong }) => wrong)).toEqual([])
  const names = new Set(both.flatMap((family) => family.hooks))
  expect([...names].sort()).toEqual(hooks.map(({ name }) => name).sort())
  expect(both.flatMap(({ statistics }) => statistics)).toEqual(
    expect.arrayContaining([
      'attn_scores std',
      'mlp_post l2_mean',
      'router_logits l2_mean',
      'topk_weights l2_mean',
      'z l2_mean',
    ]),
  )
}, 240_000)

function startExample(words: readonly string[], segments: string) {
  const [script = '', ...rest] = words
  return spawnSync(python, [join(repository, 'examples', script), '--json', ...rest], {
    encoding: 'utf8',
    env: { ...process.env, RING2_URL: exporter.url, RING2_SEGMENTS_DIRECTORY: segments },
  })
}

function runExample(...words: string[]): unknown {
  const done = startExample(words, workspace.segments)
  expect(done.status, done.stderr).toBe(0)
  return JSON.parse(done.stdout)
}

test('the example of norms shows the residual stream grow from layer to layer', () => {
  const { layers } = runExample('norms-by-layer/norms_by_layer.py', '--tokens', '3') as {
    layers: { layer: string; median: number; first: number }[]
  }
  expect(layers.map(({ layer }) => layer)).toEqual([
    ...Array.from({ length: layers.length - 1 }, (_, layer) => String(layer)),
    'end',
  ])
  expect(layers.at(-1)?.median).toBeGreaterThan(10 * (layers[0]?.median ?? Number.NaN))
}, 240_000)

test('the example of attention shows rows that add up to one and look back only', () => {
  const { tokens, pattern } = runExample(
    'attention-pattern/attention_pattern.py',
    'The cat sat on the mat',
    '--layer=3',
  ) as { tokens: string[]; pattern: number[][] }
  expect(tokens.join('')).toBe('The cat sat on the mat')
  for (const [query, row] of pattern.entries()) {
    expect(row.reduce((sum, mass) => sum + mass)).toBeCloseTo(1, 4)
    expect(row.slice(query + 1).every((mass) => mass === 0)).toBe(true)
  }
}, 240_000)

test('the example of routing counts every choice of every token', () => {
  const { layers } = runExample('moe-routing/moe_routing.py', '--tokens', '4') as {
    layers: { tokens: number; load: number[]; entropy: number; top_weight: number }[]
  }
  expect(layers).toHaveLength(4)
  for (const { tokens, load, entropy, top_weight } of layers) {
    expect(load.reduce((sum, count) => sum + count)).toBe(2 * tokens)
    expect(entropy).toBeGreaterThan(0)
    expect(entropy).toBeLessThanOrEqual(1)
    expect(top_weight).toBeGreaterThanOrEqual(0.5)
  }
}, 240_000)

test('an example that waits in vain says for what, and at its bound why and what to do', () => {
  const words = ['moe-routing/moe_routing.py', '--tokens', '1', '--wait', '0.5']
  const elsewhere = mkdtempSync(join(workspace.root, 'elsewhere-'))
  const { status, stdout, stderr } = startExample(words, elsewhere)
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(`waiting at most 0.5 s until ${exporter.url} has trace `)
  expect(stderr).toMatch(
    / is not complete after 0\.5 s; the exporter has nothing of it: run .* with the same /,
  )
}, 240_000)
