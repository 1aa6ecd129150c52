/**
 * Uploads to the real server through a proxy that misbehaves: nothing is lost, nothing is stored
 * twice, every failure is counted by its reason, and everything arrives when the faults are over.
 */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { flatName } from '../../../exporter/store/keys.ts'
import type { UploadFailure } from '../../../exporter/store/upload-failure.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, row } from '../tensors/rows.ts'
import {
  impatientUploader,
  listed,
  type OpenedBucket,
  openBucketAt,
  rightCredentials,
} from './buckets.ts'
import { type Behaviour, type Fault, type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { startWeed, type Weed } from './weed.ts'

vi.setConfig({ testTimeout: 120_000 })

let weed: Weed
let proxy: FaultProxy
let folder: string
let prefixes = 0

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
  proxy = await startFaultProxy(weed.endpoint)
}, 90_000)

afterAll(async () => {
  await proxy.stop()
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

beforeEach(() => {
  rightCredentials()
  proxy.behave(() => null)
})

const MIB = 1024 * 1024
const keyOf = (index: number) =>
  `tensors/model_slug=m/date=2026-01-01/hour=00/p-${String(index).padStart(26, '0')}.parquet`

function open(query = ''): Promise<OpenedBucket> {
  prefixes += 1
  const url = weed.storeUrl(`faults/${prefixes}`, proxy.endpoint)
  return openBucketAt(url + query)
}

/** Bytes that differ from part to part and from file to file. */
function contentOf(index: number, bytes: number): Uint8Array {
  const content = Buffer.alloc(bytes)
  for (let start = 0; start < bytes; start += 65_536) {
    content.fill((start / 65_536 + index * 7) % 251, start, Math.min(bytes, start + 65_536))
  }
  return new Uint8Array(content)
}

function queueFiles(opened: OpenedBucket, sizes: readonly number[]): void {
  mkdirSync(opened.location.queue, { recursive: true })
  for (const [index, bytes] of sizes.entries()) {
    const path = join(opened.location.queue, flatName(keyOf(index)))
    writeFileSync(path, contentOf(index, bytes))
  }
}

async function expectAllStored(opened: OpenedBucket, sizes: readonly number[]): Promise<void> {
  expect(readdirSync(opened.location.queue)).toEqual([])
  const objects = sizes.map((bytes, index) => ({ key: keyOf(index), bytes }))
  expect(await listed(opened.bucket, '')).toEqual(objects)
  for (const [index, { key, bytes }] of objects.entries()) {
    const content = Buffer.from((await opened.bucket.read(key, bytes)) ?? [])
    expect(content.equals(contentOf(index, bytes)), key).toBe(true)
  }
}

/** The fault for the first requests that may fail, and none afterwards. */
function firstTimes(times: number, fault: Fault, of: Behaviour = () => fault): Behaviour {
  let left = times
  return (asked) => {
    const chosen = left > 0 ? of(asked) : null
    if (chosen !== null) left -= 1
    return chosen
  }
}

const isWrite = (method: string) => method === 'PUT' || method === 'POST'

const faults: readonly [string, Fault, UploadFailure][] = [
  ['answers 500', { kind: 'answer', status: 500, code: 'InternalError' }, 'server_error'],
  [
    'answers 503 SlowDown and says when to come again',
    { kind: 'answer', status: 503, code: 'SlowDown', retryAfter: 1 },
    'throttled',
  ],
  ['answers 403', { kind: 'answer', status: 403, code: 'AccessDenied' }, 'forbidden'],
  ['has lost its bucket', { kind: 'answer', status: 404, code: 'NoSuchBucket' }, 'no_bucket'],
  ['closes in the middle of a body', { kind: 'cut', afterBytes: 700 }, 'unreachable'],
  ['takes everything and closes without an answer', { kind: 'mute' }, 'unreachable'],
]

test.each(faults)(
  'of a server that %s nothing is lost, and all arrives later',
  async (_, fault, reason) => {
    const opened = await open()
    const sizes = [1000, 20 * MIB, 3000, 1]
    queueFiles(opened, sizes)
    // More often than the SDK tries one request again.
    proxy.behave(firstTimes(8, fault, ({ method }) => (isWrite(method) ? fault : null)))
    const { uploader, errors } = impatientUploader(opened)
    expect(await uploader.flush(0)).toBeGreaterThan(0)
    expect(uploader.status().failing).toMatchObject({ code: 'RING2_E_STORE' })
    expect(errors[0]?.expected).toContain('to upload')
    expect(await uploader.flush(90_000)).toBe(0)
    proxy.behave(() => null)
    await expectAllStored(opened, sizes)
    const status = uploader.status()
    expect(status).toMatchObject({
      uploadedFiles: 4,
      waitingFiles: 0,
      waitingBytes: 0,
      failing: null,
    })
    expect(status.failures[reason]).toBeGreaterThan(0)
    expect(Object.keys(status.failures)).toEqual([reason])
    expect(status.failedAttempts).toBe(errors.length)
  },
)

test('a server that answers nothing is given up after a while and tried again', async () => {
  const { location, url } = await open()
  const { createBucketStore } = await import('../../../exporter/store/s3.ts')
  if (location.target.kind !== 's3') throw new Error('not a bucket')
  const bucket = createBucketStore(location.target, { idleMillisMax: 300 })
  const opened = { location, url, store: bucket, bucket }
  queueFiles(opened, [1000])
  proxy.behave(firstTimes(4, { kind: 'hang' }))
  const { uploader } = impatientUploader(opened)
  expect(await uploader.flush(60_000)).toBe(0)
  await expectAllStored(opened, [1000])
  expect(uploader.status().failures.unreachable).toBeGreaterThan(0)
  bucket.close()
})

test('a stop does not wait for a server that answers nothing', async () => {
  const opened = await open()
  queueFiles(opened, [1000, 2000, 3000])
  proxy.behave(() => ({ kind: 'hang' }))
  const { uploader, errors } = impatientUploader(opened)
  uploader.start()
  await expect.poll(() => proxy.asked().length, { timeout: 30_000 }).toBeGreaterThan(0)
  expect(await uploader.flush(50)).toBe(3)
  await uploader.stop()
  expect(errors).toEqual([])
  expect(readdirSync(opened.location.queue)).toHaveLength(3)
})

test('one object that is refused does not hold up the others', async () => {
  const opened = await open()
  const sizes = [1000, 2000, 3000]
  queueFiles(opened, sizes)
  await opened.bucket.delete(keyOf(0))
  const other = join(folder, 'other')
  writeFileSync(other, 'another object')
  await opened.bucket.put(keyOf(0), other)
  const { uploader } = impatientUploader(opened)
  expect(await uploader.flush(0)).toBe(1)
  expect(uploader.status()).toMatchObject({ uploadedFiles: 2, failures: { refused: 1 } })
  expect(uploader.status().failing?.actual).toBe('an object of 14 bytes')
  expect(readdirSync(opened.location.queue)).toEqual([flatName(keyOf(0))])
  await opened.bucket.delete(keyOf(0))
  expect(await uploader.flush(30_000)).toBe(0)
  await expectAllStored(opened, sizes)
})

test('an answer that is cut off is an error, and no answer that looks whole', async () => {
  const opened = await open()
  queueFiles(opened, [5000])
  expect(await impatientUploader(opened).uploader.flush(30_000)).toBe(0)
  proxy.behave(({ method }) => (method === 'GET' ? { kind: 'half-answer', bytes: 100 } : null))
  const refused = { code: 'RING2_E_STORE' }
  await expect(opened.bucket.getRange(keyOf(0), 0, 5000)).rejects.toMatchObject(refused)
  await expect(opened.bucket.read(keyOf(0), 5000)).rejects.toMatchObject(refused)
})

test('while the bucket is away the queue is bounded, the rows wait, and all arrives later', async () => {
  const opened = await open()
  const { location } = opened
  await proxy.leave()
  const { uploader } = impatientUploader(opened)
  uploader.start()
  // What an outage of minutes does, by its volume: bytes fill the queue, and not time.
  const queueBytesMax = 2 * MIB
  const sink = createTensorSink({ location, fsync: false, queueBytesMax })
  const data = new Uint8Array(256 * 1024)
  let stored = 0
  const flush = () => {
    const prepared = sink.prepare(producer)
    if (prepared.status !== 'success') return false
    stored += 1
    expect(sink.publish(prepared.value)).toMatchObject({ status: 'success' })
    return true
  }
  do sink.append(row({ step: stored, data, shape: [1, data.length / 4] }))
  while (flush())
  expect(stored).toBe(7)
  expect(sink.pending().rows).toBe(1)
  const waiting = await listed(opened.store, 'no-such-prefix/').catch(() => [])
  expect(waiting).toEqual([])
  await expect.poll(() => uploader.status().failures.unreachable ?? 0).toBeGreaterThan(2)
  expect(uploader.status()).toMatchObject({ uploadedFiles: 0, waitingFiles: 7 })
  await proxy.comeBack()
  expect(await uploader.flush(60_000)).toBe(0)
  expect(flush()).toBe(true)
  expect(await uploader.flush(60_000)).toBe(0)
  await uploader.stop()
  sink.close()
  expect(await listed(opened.bucket, 'tensors/')).toHaveLength(8)
  expect(uploader.status()).toMatchObject({ uploadedFiles: 8, failing: null })
})

test('parts that the server has are not sent again', async () => {
  const opened = await open()
  const sizes = [50 * MIB]
  queueFiles(opened, sizes)
  const partOf = (url: string) => new URL(url, proxy.endpoint).searchParams.get('partNumber')
  const sentParts = () => proxy.asked().flatMap(({ url }) => partOf(url) ?? [])
  proxy.behave(({ url }) => (partOf(url) === '4' ? { kind: 'cut', afterBytes: 1000 } : null))
  expect(await impatientUploader(opened).uploader.flush(0)).toBe(1)
  expect(new Set(sentParts())).toEqual(new Set(['1', '2', '3', '4']))
  proxy.behave(() => null)
  // Another process would know no more than this one: the bucket, and the queue.
  expect(await impatientUploader(opened).uploader.flush(30_000)).toBe(0)
  expect(sentParts()).toEqual(['4'])
  await expectAllStored(opened, sizes)
  expect(await weed.unfinishedUploads()).toEqual([])
})

test('parts of other bytes are sent again', async () => {
  const opened = await open()
  queueFiles(opened, [40 * MIB])
  const isThird = (url: string) => url.includes('partNumber=3')
  proxy.behave(({ url }) => (isThird(url) ? { kind: 'cut', afterBytes: 1000 } : null))
  expect(await impatientUploader(opened).uploader.flush(0)).toBe(1)
  expect(await weed.unfinishedUploads()).toHaveLength(1)
  const path = join(opened.location.queue, flatName(keyOf(0)))
  writeFileSync(path, contentOf(5, 40 * MIB))
  proxy.behave(() => null)
  expect(await impatientUploader(opened).uploader.flush(30_000)).toBe(0)
  const content = await opened.bucket.read(keyOf(0), 40 * MIB)
  expect(Buffer.from(content ?? []).equals(contentOf(5, 40 * MIB))).toBe(true)
  expect(await weed.unfinishedUploads()).toEqual([])
})

test('a server without conditional writes is written to without them', async () => {
  const opened = await open()
  const sizes = [1000, 20 * MIB, 3000]
  queueFiles(opened, sizes)
  const unknown: Fault = { kind: 'answer', status: 501, code: 'NotImplemented' }
  proxy.behave(({ headers }) => (headers['if-none-match'] === undefined ? null : unknown))
  const { uploader, errors } = impatientUploader(opened)
  expect(await uploader.flush(30_000)).toBe(0)
  expect(errors).toEqual([])
  proxy.behave(() => null)
  await expectAllStored(opened, sizes)
})

test('bytes that change on their way are refused by the server and sent again', async () => {
  const opened = await open()
  queueFiles(opened, [1000])
  const checksums = () => proxy.asked().map(({ headers }) => headers['x-amz-checksum-crc32'])
  const digest: Fault = { kind: 'answer', status: 400, code: 'BadDigest' }
  proxy.behave(firstTimes(1, digest))
  const { uploader } = impatientUploader(opened)
  expect(await uploader.flush(30_000)).toBe(0)
  expect(checksums().filter((checksum) => checksum !== undefined)).toHaveLength(2)
  expect(uploader.status().failures).toEqual({ refused: 1 })
  await expectAllStored(opened, [1000])
})

test('what was stored and not yet removed from the queue is not sent twice', async () => {
  const opened = await open()
  const sizes = [1000, 40 * MIB]
  queueFiles(opened, sizes)
  for (const index of sizes.keys()) {
    const path = join(opened.location.queue, flatName(keyOf(index)))
    expect(await opened.bucket.put(keyOf(index), path)).toEqual({
      status: 'success',
      value: 'stored',
    })
  }
  proxy.behave(() => null)
  const { uploader, errors } = impatientUploader(opened)
  expect(await uploader.flush(30_000)).toBe(0)
  expect(errors).toEqual([])
  expect(proxy.asked().filter(({ url }) => url.includes('partNumber'))).toEqual([])
  await expectAllStored(opened, sizes)
})
