/**
 * What the explorer draws, of a real model through the real pipeline, compared with what the model
 * itself held: ids, texts, entropies, surprisals, alternatives, norms and attention.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  type GeneratedRequest,
  get,
  killAll,
  type ModelProcess,
  modelFolder,
  runPython,
  startExporter,
  startModel,
  writeJson,
} from './processes.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
const question = {
  id: 'colors',
  text: 'Name three colors of the rainbow, and say “naïve 🌈” at the end.',
  traceparent: `00-${traceId}-b7ad6b7169203331-01`,
}
const newTokens = 8
const base = `/v1/traces/${traceId}`

const workspace = createWorkspace()
let exporter: Exporter
let model: ModelProcess
let generated: GeneratedRequest

afterAll(() => {
  killAll()
  workspace.remove()
})

beforeAll(async () => {
  ;[exporter, model] = await Promise.all([
    startExporter(workspace),
    startModel(workspace, {
      segment: 'chat',
      hooks: 'hidden-states,pattern,logits,token-ids',
      vocabulary: true,
    }),
  ])
  const stored = join(workspace.store, 'vocabularies')
  await vi.waitUntil(() => existsSync(stored), { timeout: 120_000, interval: 100 })
  const [first] = await model.generate([question], newTokens, true)
  if (first === undefined) throw new Error('nothing was generated')
  generated = first
  await vi.waitUntil(async () => (await document('/tokens')).vocabulary === 'known', {
    timeout: 120_000,
    interval: 200,
  })
}, 300_000)

/** Of any view; its fields are compared one by one in Python. */
interface Answer {
  readonly vocabulary?: string
  readonly tokens_per_cell?: number
  readonly rows?: unknown
}

async function document(path: string): Promise<Answer> {
  return (await get(`${exporter.url}${base}${path}`)).json<Answer>()
}

test('the views of a real request are what the model itself held', async () => {
  const { prompt, tokens } = generated
  const last = model.layers - 1
  const facts = {
    model: modelFolder(),
    reference: generated.reference,
    prompt,
    tokens: await document('/tokens'),
    alternatives: await Promise.all(
      [prompt, prompt + 3, tokens].map((at) => document(`/tokens/${at}/alternatives?k=20`)),
    ),
    norms: await document('/views/norms?columns=16'),
    patterns: await Promise.all([
      document('/views/pattern/0?head=0'),
      document(`/views/pattern/${last}?size=8`),
      document(`/views/pattern/${last}?head=8&queries=${prompt - 2}:${tokens}&keys=3:20`),
    ]),
  }
  expect(facts.norms.rows).toHaveLength(model.layers)
  expect(facts.norms.tokens_per_cell).toBeGreaterThan(1)
  expect(facts.patterns[1]?.tokens_per_cell).toBeGreaterThan(1)
  const file = join(workspace.root, 'views.json')
  writeJson(file, facts)
  const { worst, wrong } = JSON.parse(runPython('check_views.py', [file])) as {
    worst: Record<string, number>
    wrong: string[]
  }
  expect(wrong).toEqual([])
  // Five digits are shown; the model's own attention comes from another implementation.
  for (const [name, difference] of Object.entries(worst)) {
    const bound = /cell|lookback|key/.test(name) ? 5e-3 : 1e-4
    expect(difference, name).toBeLessThanOrEqual(bound)
  }
  expect(Object.keys(worst).sort()).toEqual(
    [
      ...['entropy', 'surprisal', 'confidence', 'margin', 'probability', 'logit'],
      ...['norm mean', 'norm max', 'cell', 'lookback', 'first_key', 'key_mass'],
    ].sort(),
  )
}, 60_000)
