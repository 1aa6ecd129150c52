/**
 * A bucket that goes away under a running exporter: what waits is bounded, counted and said; when
 * the bucket is back everything is there, once; and an exporter that is stopped meanwhile says by
 * its exit code that something still waits.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { openBucketAt, rightCredentials } from '../exporter/store/buckets.ts'
import { type FaultProxy, startFaultProxy } from '../exporter/store/fault-proxy.ts'
import { accessKeyId, secretAccessKey, startWeed, type Weed } from '../exporter/store/weed.ts'
import { openProducer, type TestProducer } from '../helpers/producer.ts'
import { writeRequest } from '../helpers/requests.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  startExporter,
  type Workspace,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const wait = { timeout: 60_000, interval: 100 }
const spoolBytesMax = 60_000

let weed: Weed
let proxy: FaultProxy
let folder: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
  proxy = await startFaultProxy(weed.endpoint)
}, 90_000)

afterAll(async () => {
  killAll()
  await proxy.stop()
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

interface Check {
  readonly name: string
  readonly ok: boolean
  readonly detail: string
}

async function checkOf(exporter: Exporter, name: string): Promise<Check | undefined> {
  const { checks } = (await get(`${exporter.url}/readyz`)).json<{ checks: Check[] }>()
  return checks.find((check) => check.name === name)
}

async function metric(exporter: Exporter, name: string): Promise<number> {
  const page = Buffer.from((await get(`${exporter.url}/metrics`)).bytes).toString('utf8')
  const line = page.split('\n').find((one) => one.startsWith(name))
  return Number(line?.split(' ')[1] ?? Number.NaN)
}

function queued(workspace: Workspace): string[] {
  return readdirSync(join(workspace.root, 'spool', 'queue'))
}

/** The objects of the bucket as files, so that DuckDB reads what another machine would. */
async function download(): Promise<string> {
  const { bucket } = await openBucketAt(weed.storeUrl('outage'))
  const store = mkdtempSync(join(folder, 'download-'))
  for await (const { key, bytes } of bucket.list('')) {
    mkdirSync(dirname(join(store, key)), { recursive: true })
    writeFileSync(join(store, key), (await bucket.read(key, bytes)) ?? '')
  }
  return store
}

async function expectStoredOnce(requests: number): Promise<void> {
  const store = await download()
  const [rows] = await queryDuckDb(
    `SELECT count(*)::INTEGER AS rows, count(DISTINCT (request_id, layer, step))::INTEGER AS places
     FROM ${tensorsOf(store)}`,
  )
  expect(rows).toEqual({ rows: requests * 4, places: requests * 4 })
  const ended = await queryDuckDb(
    `SELECT count(*)::INTEGER AS rows, count(DISTINCT request_id)::INTEGER AS ids,
       count(*) FILTER (completeness = 'complete')::INTEGER AS complete
     FROM ${requestsOf(store)}`,
  )
  expect(ended).toEqual([{ rows: requests, ids: requests, complete: requests }])
}

test('a bucket that is away holds up the rings, is told, loses nothing, and an exit code says so', async () => {
  rightCredentials()
  const workspace = createWorkspace()
  onTestFinished(() => workspace.remove())
  const settings = {
    RING2_STORE_URL: weed.storeUrl('outage', proxy.endpoint),
    RING2_STORE_SPOOL_BYTES_MAX: String(spoolBytesMax),
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
  }
  const exporter = await startExporter(workspace, settings)
  const producer: TestProducer = openProducer({ directory: workspace.segments, name: 'chat' })
  onTestFinished(() => producer.close())
  producer.model()
  let requests = 0
  const write = () => writeRequest(producer, ++requests, 3, 2)

  write()
  await vi.waitUntil(
    async () => (await metric(exporter, 'ring2_store_upload_files_total')) >= 2,
    wait,
  )
  expect(await checkOf(exporter, 'upload')).toEqual({
    name: 'upload',
    ok: true,
    detail: 'up to date',
  })

  await proxy.leave()
  // One flush after the other, until nothing more may wait.
  await vi.waitUntil(
    async () => {
      write()
      return (await checkOf(exporter, 'store'))?.ok === false
    },
    { timeout: 90_000, interval: 400 },
  )
  const waiting = queued(workspace)
  expect(await checkOf(exporter, 'upload')).toMatchObject({
    ok: false,
    detail: expect.stringMatching(/files wait, \d+ of at most 60000 bytes: RING2_E_STORE/),
  })
  const failures = 'ring2_store_upload_failures_total{error_type="unreachable"}'
  expect(await metric(exporter, failures)).toBeGreaterThan(0)
  expect(await metric(exporter, 'ring2_store_upload_pending_files')).toBeGreaterThan(0)
  expect(await metric(exporter, 'ring2_store_upload_pending_limit_bytes')).toBe(spoolBytesMax)
  const pending = await metric(exporter, 'ring2_store_upload_pending_size_bytes')
  expect(pending).toBeLessThanOrEqual(spoolBytesMax)
  for (let extra = 0; extra < 5; extra++) write()
  expect(queued(workspace)).toEqual(waiting)

  await proxy.comeBack()
  const allListed = async () => {
    const { traces } = (await get(`${exporter.url}/v1/traces?limit=500`)).json<{
      traces: { ended_at: unknown }[]
    }>()
    return traces.filter(({ ended_at }) => ended_at !== null).length === requests
  }
  await vi.waitUntil(allListed, wait)
  await vi.waitUntil(() => queued(workspace).length === 0, wait)
  await expectStoredOnce(requests)
  await vi.waitUntil(async () => (await checkOf(exporter, 'upload'))?.ok === true, wait)
  expect(await checkOf(exporter, 'store')).toMatchObject({ ok: true })

  await proxy.leave()
  write()
  await vi.waitUntil(() => queued(workspace).length > 0, wait)
  expect(await exporter.stop()).toBe(1)
  expect(exporter.logs().map(({ msg }) => msg)).toContain(
    'not uploaded yet: the next start goes on',
  )
  await proxy.comeBack()
  const second = await startExporter(workspace, settings)
  await vi.waitUntil(() => queued(workspace).length === 0, wait)
  producer.close()
  expect(await second.stop()).toBe(0)
  await expectStoredOnce(requests)
}, 300_000)
