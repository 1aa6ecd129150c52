/**
 * The bucket store, its queue and the uploader against a real server that checks signatures.
 */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  expect,
  onTestFinished,
  test,
  vi,
} from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import type { Ring2Error } from '../../../exporter/errors.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { openStore } from '../../../exporter/store/open-store.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { floats, producer, row, summary, traceA } from '../tensors/rows.ts'
import { asFloats, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { startFaultProxy } from './fault-proxy.ts'
import { accessKeyId, secretAccessKey, startWeed, type Weed } from './weed.ts'

const START_MILLIS = 90_000
// A busy machine may take its time; nothing here asserts how long anything takes.
vi.setConfig({ testTimeout: 90_000 })

let weed: Weed
let folder: string
let prefixes = 0

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
}, START_MILLIS)

afterAll(async () => {
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

const credentialNames = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'] as const
const saved = new Map<string, string | undefined>()

beforeEach(() => {
  for (const name of credentialNames) saved.set(name, process.env[name])
  process.env.AWS_ACCESS_KEY_ID = accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = secretAccessKey
})

afterEach(() => {
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
})

/** A prefix of its own for each test. */
function openBucket(): Promise<Opened> {
  prefixes += 1
  return open(weed.storeUrl(`some/prefix-${prefixes}`))
}

async function open(url: string) {
  const location = locateStore(url, temporaryFolder())
  const { store, bucket } = await openStore(location)
  if (bucket === null) throw new Error('not a bucket')
  onTestFinished(() => store.close())
  return { url, location, store, bucket }
}

type Opened = Awaited<ReturnType<typeof open>>

function sinkOf(opened: Opened, queueBytesMax?: number) {
  const { location } = opened
  const bound = queueBytesMax === undefined ? {} : { queueBytesMax }
  return createTensorSink({ location, fsync: false, ...bound })
}

function flush(opened: Opened, ...rows: Parameters<ReturnType<typeof sinkOf>['append']>[0][]) {
  const sink = sinkOf(opened)
  for (const one of rows) sink.append(one)
  sink.finish(summary())
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  expect(sink.publish(prepared.value)).toMatchObject({ status: 'success' })
  sink.close()
  return prepared.value
}

function uploaderOf(opened: Opened, bucket: ObjectStore = opened.bucket) {
  const errors: Ring2Error[] = []
  const uploader = createUploader({
    queue: opened.location.queue,
    bucket,
    onError: (error) => void errors.push(error),
    retryMillisMin: 5,
    retryMillisMax: 20,
  })
  return { uploader, errors }
}

async function fetchTensor(opened: Opened) {
  const catalog = openCatalog(opened.location.catalog)
  try {
    const source = createParquetSource(opened.store)
    const tensor = await createTensorReader({ catalog, source }).open(query())
    return asFloats(await tensor.read())
  } finally {
    catalog.close()
  }
}

async function keysOf(store: ObjectStore, prefix = ''): Promise<string[]> {
  const keys: string[] = []
  for await (const object of store.list(prefix)) keys.push(object.key)
  return keys.sort()
}

test('a tensor can be fetched before its upload, during it and after it', async () => {
  const opened = await openBucket()
  flush(opened, row({ data: floats(1, 2, 3, 4) }))
  expect(readdirSync(opened.location.queue)).toHaveLength(2)
  expect(await keysOf(opened.bucket)).toEqual([])
  expect(await fetchTensor(opened)).toEqual([1, 2, 3, 4])
  const { uploader, errors } = uploaderOf(opened)
  const [left, during] = await Promise.all([uploader.flush(30_000), fetchTensor(opened)])
  expect([left, during, errors]).toEqual([0, [1, 2, 3, 4], []])
  expect(readdirSync(opened.location.queue)).toEqual([])
  const keys = await keysOf(opened.bucket)
  expect(keys.map((key) => key.split('/')[0])).toEqual(['requests', 'tensors'])
  expect(await fetchTensor(opened)).toEqual([1, 2, 3, 4])
  expect(uploader.status()).toMatchObject({ uploadedFiles: 2, failedAttempts: 0 })
})

test('files of several parts arrive whole, and ranges of them can be read', async () => {
  const opened = await openBucket()
  const path = join(temporaryFolder(), 'large')
  const bytes = new Uint8Array(40 * 1024 * 1024).map((_, index) => (index * 31) % 251)
  writeFileSync(path, bytes)
  const key = 'tensors/model=m/date=2026-01-01/hour=00/p-1.parquet'
  expect(await opened.bucket.put(key, path)).toMatchObject({ status: 'success' })
  expect(await opened.bucket.size(key)).toBe(bytes.length)
  const start = 16 * 1024 * 1024 - 3
  expect(await opened.bucket.getRange(key, start, 10)).toEqual(bytes.slice(start, start + 10))
  expect(await opened.bucket.getRange(key, 5, 0)).toEqual(new Uint8Array(0))
  expect(await opened.bucket.delete(key)).toMatchObject({ status: 'success' })
  expect(await opened.bucket.size(key)).toBeNull()
  expect(await opened.bucket.delete(key)).toMatchObject({ status: 'success' })
  await expect(opened.bucket.getRange(key, 0, 1)).rejects.toMatchObject({ code: 'RING2_E_STORE' })
})

test('the catalogue is made again from the bucket and the queue together', async () => {
  const opened = await openBucket()
  flush(opened, row())
  expect(await uploaderOf(opened).uploader.flush(30_000)).toBe(0)
  flush(opened, row({ layer: 1 }))
  rmSync(opened.location.catalog)
  const report = await rebuildCatalog(opened.store, opened.location.catalog)
  expect(report).toMatchObject({ files: 4, damaged: [] })
  const catalog = openCatalog(opened.location.catalog)
  expect(catalog.series({ traceId: traceA })).toHaveLength(2)
  catalog.close()
})

test('publishing again after the upload is harmless', async () => {
  const opened = await openBucket()
  const names = flush(opened, row())
  expect(await uploaderOf(opened).uploader.flush(30_000)).toBe(0)
  expect(sinkOf(opened).publish(names)).toMatchObject({ status: 'success' })
  expect(readdirSync(opened.location.queue)).toEqual([])
  expect(await keysOf(opened.bucket, 'tensors/')).toHaveLength(1)
})

test('a wrong secret is a clear error, and the files wait for the right one', async () => {
  const opened = await openBucket()
  flush(opened, row())
  process.env.AWS_SECRET_ACCESS_KEY = 'not-the-secret'
  const wrong = await open(opened.url)
  const { uploader, errors } = uploaderOf(opened, wrong.bucket)
  expect(await uploader.flush(0)).toBe(2)
  expect(errors[0]).toMatchObject({
    code: 'RING2_E_STORE',
    actual: expect.stringContaining('SignatureDoesNotMatch, HTTP 403'),
    action: expect.stringContaining('AWS_SECRET_ACCESS_KEY'),
  })
  expect(errors[0]?.message).not.toContain('not-the-secret')
  expect(readdirSync(opened.location.queue)).toHaveLength(2)
  await expect(keysOf(wrong.bucket)).rejects.toMatchObject({ code: 'RING2_E_STORE' })
  process.env.AWS_SECRET_ACCESS_KEY = secretAccessKey
  const right = await open(opened.url)
  expect(await uploaderOf(opened, right.bucket).uploader.flush(30_000)).toBe(0)
  expect(await fetchTensor(opened)).toEqual([1, 2, 3, 4])
})

test('an unknown access key and a missing bucket are told apart', async () => {
  const opened = await openBucket()
  process.env.AWS_ACCESS_KEY_ID = 'nobody'
  const nobody = await open(opened.url)
  await expect(keysOf(nobody.bucket)).rejects.toMatchObject({
    actual: expect.stringContaining('InvalidAccessKeyId'),
    action: expect.stringContaining('AWS_ACCESS_KEY_ID'),
  })
  process.env.AWS_ACCESS_KEY_ID = accessKeyId
  const missing = await open(opened.url.replace('ring2-tests', 'no-such-bucket'))
  await expect(keysOf(missing.bucket)).rejects.toMatchObject({
    actual: expect.stringContaining('NoSuchBucket'),
    action: expect.stringContaining('Create the bucket'),
  })
})

test('a server that is away keeps the files, and the uploader goes on later', async () => {
  const opened = await openBucket()
  flush(opened, row())
  const away = await open(opened.url.replace(/127\.0\.0\.1%3A\d+/, '127.0.0.1%3A1'))
  let reachable = false
  const flaky: ObjectStore = {
    ...opened.bucket,
    put: (key, path) => (reachable ? opened.bucket : away.bucket).put(key, path),
  }
  const { uploader, errors } = uploaderOf(opened, flaky)
  expect(await uploader.flush(0)).toBe(2)
  expect(errors[0]).toMatchObject({
    code: 'RING2_E_STORE',
    actual: expect.stringContaining('ECONNREFUSED'),
    action: expect.stringContaining('wait in the queue'),
  })
  reachable = true
  expect(await uploader.flush(30_000)).toBe(0)
  expect(uploader.status()).toMatchObject({ failing: null, failures: { unreachable: 2 } })
})

test('what a crash left in the queue is uploaded after the next start', async () => {
  const opened = await openBucket()
  flush(opened, row())
  writeFileSync(join(opened.location.queue, 'half.parquet.partial'), 'PAR1')
  const uploaded: string[] = []
  const errors: Ring2Error[] = []
  const uploader = createUploader({
    queue: opened.location.queue,
    bucket: opened.bucket,
    onError: (error) => void errors.push(error),
    onUploaded: (object) => void uploaded.push(object.key),
    pollMillis: 10,
  })
  uploader.start()
  await expect.poll(() => uploaded.length, { timeout: 30_000 }).toBe(2)
  await uploader.stop()
  expect(errors).toEqual([])
  expect(readdirSync(opened.location.queue)).toEqual(['half.parquet.partial'])
})

test('a full queue asks the drain loop to wait and keeps the rows', async () => {
  const opened = await openBucket()
  flush(opened, row())
  const sink = sinkOf(opened, 1024)
  sink.append(row({ layer: 1 }))
  const refused = sink.prepare(producer)
  expect(refused.status).toBe('retryable')
  expect(refused.status === 'retryable' && refused.error).toMatchObject({
    code: 'RING2_E_STORE',
    expected: expect.stringContaining('at most 1024 bytes waiting'),
  })
  expect(sink.pending().rows).toBe(1)
  expect(await uploaderOf(opened).uploader.flush(30_000)).toBe(0)
  expect(sink.prepare(producer).status).toBe('success')
})

test('a fetch never lists the bucket', async () => {
  const opened = await openBucket()
  flush(opened, row({ data: floats(1, 2, 3, 4) }))
  expect(await uploaderOf(opened).uploader.flush(30_000)).toBe(0)
  const proxy = await startFaultProxy(weed.endpoint)
  onTestFinished(proxy.stop)
  const through = await open(weed.storeUrl(`some/prefix-${prefixes}`, proxy.endpoint))
  expect(await fetchTensor({ ...through, location: opened.location })).toEqual([1, 2, 3, 4])
  const methods = proxy.asked().map(({ method, url }) => `${method} ${url.split('?')[1] ?? ''}`)
  expect(methods.filter((asked) => asked.startsWith('GET'))).not.toEqual([])
  expect(methods.filter((asked) => asked.includes('list-type'))).toEqual([])
})
