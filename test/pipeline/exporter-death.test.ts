/**
 * Exporters that are killed while a model runs, and those that come after them: everything the
 * producer committed is stored once, and every request comes out as a span and a summary.
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { deriveSpanId } from '../../collector/ids.ts'
import { plainAttributes, type Receiver, startReceiver } from '../helpers/otlp-receiver.ts'
import {
  createWorkspace,
  type Exporter,
  type GeneratedRequest,
  killAll,
  type ModelProcess,
  runPython,
  segmentFiles,
  startExporter,
  startModel,
  writeJson,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const requestCount = 12
const newTokens = 6
/** The exporter lives this long after it is ready, and is then killed. */
const livesMillis = [30, 150, 400, 900]
const prompts = ['Hi.', 'Name three colors.', 'Count to ten, please, and then count back to one.']

const workspace = createWorkspace()
let receiver: Receiver
let model: ModelProcess
let exporter: Exporter
const generated: GeneratedRequest[] = []
let committed: { records: number; bytes: number }
let kills = 0

const traceOf = (index: number) => (index + 1).toString(16).padStart(32, 'a')
const parentOf = (index: number) => (index + 1).toString(16).padStart(16, 'b')
const settings = () => ({ RING2_TELEMETRY_ENDPOINT: receiver.url })

async function generateAll(): Promise<void> {
  for (let index = 0; index < requestCount; index++) {
    const text = prompts[index % prompts.length] ?? ''
    const traceparent = `00-${traceOf(index)}-${parentOf(index)}-01`
    const command = { id: `request-${index}`, text, traceparent }
    // One of them is compared with the model's own states; the reference costs time.
    generated.push(...(await model.generate([command], newTokens, index === 5)))
  }
}

async function killAndRestart(until: Promise<void>): Promise<void> {
  let done = false
  void until.finally(() => {
    done = true
  })
  while (!done || kills < livesMillis.length) {
    await sleep(livesMillis[kills % livesMillis.length])
    expect(await exporter.stop('SIGKILL')).toBe('SIGKILL')
    kills += 1
    exporter = await startExporter(workspace, settings())
  }
}

afterAll(async () => {
  killAll()
  await receiver?.stop()
  workspace.remove()
})

beforeAll(async () => {
  receiver = await startReceiver()
  ;[exporter, model] = await Promise.all([
    startExporter(workspace, settings()),
    startModel(workspace, { segment: 'chat', hooks: 'hidden-states,logits' }),
  ])
  const running = generateAll()
  await Promise.all([running, killAndRestart(running)])
  committed = await model.counters()
  expect(await model.detach()).toBe(0)
  await vi.waitUntil(() => segmentFiles(workspace).length === 0, { timeout: 60_000 })
}, 240_000)

test('every committed record is stored once, with all its bytes', async () => {
  expect(kills).toBeGreaterThanOrEqual(livesMillis.length)
  const [stored] = await queryDuckDb(
    `SELECT count(*)::INTEGER AS rows, sum(data_bytes)::BIGINT::VARCHAR AS bytes,
       count(DISTINCT (request_id, hook, layer, step, token_start))::INTEGER AS places
     FROM ${tensorsOf(workspace.store)}`,
  )
  const steps = generated.reduce((sum, request) => sum + request.steps, 0)
  // MODEL, and for each request REQUEST and REQUEST_END, and a STEP per step, are no tensors.
  const tensors = committed.records - 1 - 2 * requestCount - steps
  expect(tensors).toBe(steps * (model.layers + 1))
  expect(stored).toMatchObject({ rows: tensors, places: tensors })
  const tokens = generated.reduce((sum, request) => sum + request.tokens, 0)
  expect(Number(stored?.bytes)).toBe(4 * (tokens * model.layers * 576 + steps * 49_152))
})

test('every request has one summary, complete and with everything that was stored of it', async () => {
  const rows = await queryDuckDb(
    `SELECT r.request_id, r.completeness, r.verdict, r.tensors_stored::INTEGER AS said,
       r.bytes_stored::BIGINT::VARCHAR AS said_bytes, t.rows, t.bytes
     FROM ${requestsOf(workspace.store)} r JOIN (
       SELECT request_id, count(*)::INTEGER AS rows, sum(data_bytes)::BIGINT::VARCHAR AS bytes
       FROM ${tensorsOf(workspace.store)} GROUP BY request_id) t USING (request_id)`,
  )
  expect(rows).toHaveLength(requestCount)
  expect(new Set(rows.map((row) => row.request_id)).size).toBe(requestCount)
  for (const row of rows) {
    expect(row).toMatchObject({
      completeness: 'complete',
      verdict: 'ok',
      said: row.rows,
      said_bytes: row.bytes,
    })
  }
})

test('what is stored is what the model held', async () => {
  const compared = generated[5]
  const answer = await fetch(`${exporter.url}/v1/traces/${traceOf(5)}/tensors/resid_pre/12`)
  const file = `${workspace.root}/resid_pre.npy`
  writeFileSync(file, new Uint8Array(await answer.arrayBuffer()))
  const list = `${workspace.root}/list.json`
  const reference = compared?.reference
  writeJson(list, [{ file, format: 'npy', reference, array: 'resid_pre.12', tolerance: 0 }])
  expect(JSON.parse(runPython('compare_tensors.py', [list]))).toMatchObject([{ equal: true }])
})

test('every request comes out as a span with its own ids, whoever sent it', async () => {
  const requestSpans = () => receiver.spans().filter(({ name }) => name === 'ring2 request')
  await vi.waitUntil(
    () => new Set(requestSpans().map(({ spanId }) => spanId)).size >= requestCount,
    { timeout: 30_000 },
  )
  for (let index = 0; index < requestCount; index++) {
    const id = `request-${index}`
    const own = requestSpans().filter(({ traceId }) => traceId === traceOf(index))
    // One that was sent twice, before and after a kill, has the same id and says the same.
    expect(new Set(own.map(({ spanId }) => spanId))).toEqual(
      new Set([deriveSpanId(traceOf(index), id, 'request')]),
    )
    for (const span of own) {
      expect(span.parentSpanId).toBe(parentOf(index))
      expect(plainAttributes(span.attributes)).toMatchObject({
        'ring2.completeness': 'complete',
        'ring2.request.id': id,
      })
    }
  }
})

test('nothing is left behind: no spool file, no checkpoint, and SIGTERM ends it with 0', async () => {
  expect(await exporter.stop('SIGTERM')).toBe(0)
  const state = readdirSync(`${workspace.store}/.ring2`, { recursive: true }).map(String)
  expect(state.filter((name) => /parquet|checkpoint|partial/.test(name))).toEqual([])
})
