/** `ring2.open` in Python, against the running exporter and the store's folder with a real capture. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  type GeneratedRequest,
  get,
  killAll,
  type ModelProcess,
  runPython,
  startExporter,
  startModel,
} from './processes.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
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
    // One hook by a codec, so that decoding is on the way back too.
    startExporter(workspace, { RING2_STORE_CODECS: 'resid_pre=lossless' }),
    startModel(workspace, { segment: 'chat', hooks: 'hidden-states,pattern,logits,token-ids' }),
  ])
  const traceparent = `00-${traceId}-b7ad6b7169203331-01`
  const command = { id: 'one', text: 'Name three colors.', traceparent }
  const [first] = await model.generate([command], 4, true)
  if (first === undefined) throw new Error('nothing was generated')
  generated = first
  await model.detach()
  await vi.waitUntil(
    async () => {
      const { traces } = (await get(`${exporter.url}/v1/traces`)).json<{
        traces: { completeness: string }[]
      }>()
      return traces.some(({ completeness }) => completeness === 'complete')
    },
    { timeout: 60_000, interval: 200 },
  )
}, 240_000)

interface ReadBack {
  readonly patterns: Record<string, number>
  readonly heads: number
  readonly worst_l2: number
  readonly names: readonly string[]
  readonly columns: readonly string[]
  readonly [fact: string]: unknown
}

function readBack(where: string): ReadBack {
  return JSON.parse(runPython('read_back.py', [where, traceId, generated.reference ?? '']))
}

function expectAll(found: ReadBack): void {
  const tensors = 2 * model.layers + 2
  expect(found).toMatchObject({
    requests: ['one'],
    complete: true,
    count: tensors,
    // Every layer of the residual stream, three of the patterns, logits and ids.
    compared: model.layers + 3 + 2,
    wrong: [],
    incomplete: [],
    part: true,
    torch: true,
    rows: tensors * generated.steps,
    time: 'datetime64[us, UTC]',
  })
  expect(new Set(found.names).size).toBe(tensors)
  expect(found.columns).toContain('statistics.surprisal_mean')
  for (const difference of [...Object.values(found.patterns), found.heads]) {
    expect(difference).toBeLessThan(1e-5)
  }
  expect(Object.keys(found.patterns)).toHaveLength(3)
  expect(found.worst_l2).toBeLessThan(1e-5)
}

test('a running exporter gives NumPy, PyTorch and pandas what the model held', () => {
  expectAll(readBack(exporter.url))
}, 240_000)

test('the folder of the store gives the same without an exporter', () => {
  expectAll(readBack(workspace.store))
}, 240_000)
