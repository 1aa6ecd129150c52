/** A model process that is killed with a claim left open: what it had committed is kept once. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { plainAttributes, type Receiver, startReceiver } from '../helpers/otlp-receiver.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  type ModelProcess,
  segmentFiles,
  startExporter,
  startModel,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const layer = 7
const step = 3

const workspace = createWorkspace()
let receiver: Receiver
let exporter: Exporter
let model: ModelProcess

afterAll(async () => {
  killAll()
  await receiver?.stop()
  workspace.remove()
})

beforeAll(async () => {
  receiver = await startReceiver()
  ;[exporter, model] = await Promise.all([
    startExporter(workspace, { RING2_TELEMETRY_ENDPOINT: receiver.url }),
    startModel(workspace, { segment: 'doomed', hooks: 'hidden-states,logits' }),
  ])
  await model.generate([{ id: 'before', text: 'Hi.' }], 3)
  expect(await model.die({ request: 'last', text: 'Hello there.', layer, step })).toBe('SIGKILL')
  await vi.waitUntil(() => segmentFiles(workspace).length === 0, { timeout: 60_000 })
}, 240_000)

test('everything committed is stored once: whole steps, and of the last one what came before', async () => {
  const rows = await queryDuckDb(
    `SELECT request_id, step::INTEGER AS step, hook, layer, count(*)::INTEGER AS rows
     FROM ${tensorsOf(workspace.store)} GROUP BY ALL ORDER BY request_id, step, hook, layer`,
  )
  expect(rows.filter((row) => row.rows !== 1)).toEqual([])
  const layersOf = (request: string, at: number) =>
    rows
      .filter((row) => row.request_id === request && row.hook === 'resid_pre')
      .filter((row) => row.step === at)
      .map((row) => Number(row.layer))
  const all = Array.from({ length: model.layers }, (_, index) => index)
  for (const at of [0, 1, 2]) expect(layersOf('before', at)).toEqual(all)
  for (const at of [3, 4, 5]) expect(layersOf('last', at)).toEqual(all)
  // The claim was opened after layer 7 had been captured, and before layer 8.
  expect(layersOf('last', 6)).toEqual(all.slice(0, layer + 1))
  const logits = rows.filter((row) => row.hook === 'final_logits')
  expect(logits.map((row) => row.step)).toEqual([0, 1, 2, 3, 4, 5])
})

test('the finished request is complete, and the other one says what is missing and why', async () => {
  const [before, last] = await queryDuckDb(
    `SELECT request_id, completeness, verdict, summary FROM ${requestsOf(workspace.store)}
     ORDER BY request_id`,
  )
  expect(before).toMatchObject({ request_id: 'before', completeness: 'complete', verdict: 'ok' })
  expect(last).toMatchObject({
    request_id: 'last',
    completeness: 'incomplete',
    verdict: 'unknown',
  })
  const { completeness, steps } = JSON.parse(String(last?.summary))
  expect(steps).toBe(4)
  expect(completeness.reasons).toEqual([
    `resid_pre: ${model.layers - layer - 1} of ${4 * model.layers} records missing`,
    'final_logits: 1 of 4 records missing',
    'the producer ended before the request did',
    'the producer never said how many steps it ran',
  ])
})

test('the span says so too', async () => {
  const find = () =>
    receiver.spans().find(({ attributes, name }) => {
      return name === 'ring2 request' && plainAttributes(attributes)['ring2.request.id'] === 'last'
    })
  await vi.waitUntil(() => find() !== undefined, { timeout: 30_000 })
  const span = find()
  expect(plainAttributes(span?.attributes)).toMatchObject({
    'ring2.completeness': 'incomplete',
    'ring2.verdict': 'unknown',
  })
  expect(span?.events?.map(({ name }) => name)).toEqual([
    'ring2.incomplete',
    'gen_ai.evaluation.result',
  ])
})

test('the lost record is counted with its reason, by record and by bytes', async () => {
  const page = Buffer.from((await get(`${exporter.url}/metrics`)).bytes).toString('utf8')
  const lost = (family: string) =>
    page
      .split('\n')
      .filter((line) => line.startsWith(family) && line.includes('error_type="producer_died"'))
      .map((line) => Number(line.split(' ').at(-1)))
  expect(lost('ring2_capture_lost_records_total')).toEqual([1])
  expect(lost('ring2_capture_lost_io_bytes_total')).toEqual([576 * 4])
})

test('the exporter goes on, and ends in order', async () => {
  expect((await get(`${exporter.url}/readyz`)).status).toBe(200)
  expect(await exporter.stop('SIGTERM')).toBe(0)
})
