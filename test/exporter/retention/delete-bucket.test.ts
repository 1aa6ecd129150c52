/** Deletion and retention in a bucket that several exporters write, on a real S3 server. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import type { DeletionContext } from '../../../exporter/retention/context.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { retentionPass } from '../../../exporter/retention/retention.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { openExporter } from '../catalog/bucket-fixture.ts'
import { openBucketAt, rightCredentials } from '../store/buckets.ts'
import { type FaultProxy, startFaultProxy } from '../store/fault-proxy.ts'
import { startWeed, type Weed } from '../store/weed.ts'
import {
  floats,
  noonMicros,
  otherProducer,
  producer,
  request,
  row,
  summary,
  traceA,
  traceB,
} from '../tensors/rows.ts'
import { asFloats, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { errorOf, filesWith } from './findings.ts'

vi.setConfig({ testTimeout: 120_000 })

const secretText = 'payload of the deleted trace: sixteen and more bytes....'
const secret = new TextEncoder().encode(secretText)
const requestB = request({ traceId: traceB, requestId: 'request-2' })

let weed: Weed
let proxy: FaultProxy
let folder: string
let prefixes = 0

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
  proxy = await startFaultProxy(weed.endpoint)
}, 120_000)

afterAll(async () => {
  await proxy.stop()
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

beforeEach(rightCredentials)

/** A bucket behind the proxy, so that a test can make it refuse. */
async function openBucket(): Promise<ObjectStore> {
  proxy.behave(() => null)
  prefixes += 1
  const url = new URL(weed.storeUrl(`delete-${prefixes}`))
  url.searchParams.set('endpoint', proxy.endpoint)
  return (await openBucketAt(url.href)).bucket
}

type Opened = ReturnType<typeof openExporter>

function contextOf(exporter: Opened, bucket: ObjectStore): DeletionContext {
  const { location, store, catalog } = exporter
  return { location, store, bucket, catalog, fsync: false, settleMillis: 0 }
}

/** One file with rows of both traces, as two requests at a time leave it. */
async function storeBoth(exporter: Opened): Promise<void> {
  exporter.flush(
    [
      row({ shape: [1, 14], data: secret.slice() }),
      row({ request: requestB, data: floats(9, 8, 7, 6) }),
    ],
    [summary(), summary({ request: requestB })],
  )
  expect(await exporter.upload()).toBe(0)
}

async function objectsWith(
  bucket: ObjectStore,
  text: string,
  prefixes = ['tensors/', 'requests/', 'contexts/', 'catalog/'],
): Promise<string[]> {
  const found: string[] = []
  for (const prefix of prefixes) {
    for await (const { key, bytes } of bucket.list(prefix)) {
      if (Buffer.from(await bucket.getRange(key, 0, bytes)).includes(text)) found.push(key)
    }
  }
  return found
}

async function floatsOfB(exporter: Opened): Promise<number[]> {
  await exporter.find(traceB)
  const opened = await exporter.reader().open(query({ traceId: traceB }))
  return asFloats(await opened.read())
}

describe('Deleting from a bucket', () => {
  test('removes what another exporter stored, and leaves the rows of others findable', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    await storeBoth(writer)
    const state = temporaryFolder()
    const other = openExporter(bucket, state)
    expect(await objectsWith(bucket, secretText)).toHaveLength(1)
    const report = await deleteTrace(contextOf(other, bucket), traceA, null)
    expect(report).toMatchObject({ requests: 1, tensors: 1, files_removed: 2, files_rewritten: 2 })
    for (const text of [secretText, traceA]) {
      expect(await objectsWith(bucket, text)).toEqual([])
      expect(filesWith(state, text)).toEqual([])
    }
    expect(await floatsOfB(other)).toEqual([9, 8, 7, 6])
    const third = openExporter(bucket, temporaryFolder())
    expect(await floatsOfB(third)).toEqual([9, 8, 7, 6])
    expect(third.catalog.requests(traceA)).toEqual([])
  })

  test('leads the exporter that wrote it to what took the place of its files', async () => {
    const bucket = await openBucket()
    const state = temporaryFolder()
    const writer = openExporter(bucket, state)
    await storeBoth(writer)
    const deleter = openExporter(bucket, temporaryFolder())
    await deleteTrace(contextOf(deleter, bucket), traceA, null)
    expect(await floatsOfB(writer)).toEqual([9, 8, 7, 6])
    await writer.find(traceA)
    expect(writer.catalog.requests(traceA)).toEqual([])
    // They are the writer's to remove by retention, as the files before them were.
    const tensorsOf = ({ catalog }: Opened) =>
      catalog.files().filter(({ dataset }) => dataset === 'tensors')
    expect(deleter.catalog.files()).toEqual([])
    const sizes = await Promise.all(tensorsOf(writer).map(({ key }) => bucket.size(key)))
    expect(sizes.filter((size) => size !== null)).toHaveLength(1)
    const rules = { general: { ageMillis: null, bytesMax: 1 }, models: [] }
    const { location, store, catalog } = writer
    const facts = { location, store, catalog, rules, onRemoved: () => undefined }
    await retentionPass(facts, noonMicros / 1000)
    expect(await objectsWith(bucket, 'PAR1', ['tensors/'])).toEqual([])
  })

  test('forgets elsewhere what the exporter that wrote it deletes later', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    await storeBoth(writer)
    const deleter = openExporter(bucket, temporaryFolder())
    await deleteTrace(contextOf(deleter, bucket), traceA, null)
    await deleteTrace(contextOf(writer, bucket), traceB, null)
    expect(await objectsWith(bucket, traceB)).toEqual([])
    await deleter.find(traceB)
    expect(deleter.catalog.requests(traceB)).toEqual([])
  })

  test('by the id of a caller removes what others stored under the id of the rows', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    writer.flush([row()], [summary()])
    const late = request({ traceId: traceB, storedTraceId: traceA })
    writer.sink.moved(summary({ request: late }))
    writer.flush([])
    expect(await writer.upload()).toBe(0)
    const second = openExporter(bucket, temporaryFolder())
    const own = { producer: otherProducer }
    second.flush(
      [row({ ...own, shape: [1, 14], data: secret.slice() })],
      [summary(own)],
      otherProducer,
    )
    expect(await second.upload()).toBe(0)
    const deleter = openExporter(bucket, temporaryFolder())
    expect(await deleteTrace(contextOf(deleter, bucket), traceB, null)).toMatchObject({
      tensors: 2,
    })
    for (const text of [secretText, traceA, traceB]) {
      expect(await objectsWith(bucket, text)).toEqual([])
    }
  })

  test('is not undone by what was read before a rebuild of another catalogue', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    await storeBoth(writer)
    const other = openExporter(bucket, temporaryFolder())
    await other.find(traceB)
    expect(other.catalog.indexes.knownOfTrace(traceB)).toMatchObject([{ imported: true }])
    await rebuildCatalog(other.store, other.location.catalog)
    expect(other.catalog.indexes.knownOfTrace(traceB)).toEqual([])
    expect(await floatsOfB(other)).toEqual([9, 8, 7, 6])
  })

  test('is refused while a file of the trace waits for its upload', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    writer.flush([row()], [summary()])
    const error = await errorOf(deleteTrace(contextOf(writer, bucket), traceA, null))
    expect(error.code).toBe('RING2_E_UNSETTLED')
    expect(await writer.upload()).toBe(0)
    await deleteTrace(contextOf(writer, bucket), traceA, null)
    expect(await objectsWith(bucket, traceA)).toEqual([])
  })

  test('says what is left when the bucket refuses, and finishes when it does not', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    await storeBoth(writer)
    proxy.behave(({ method }) =>
      method === 'DELETE' ? { kind: 'answer', status: 403, code: 'AccessDenied' } : null,
    )
    const error = await errorOf(deleteTrace(contextOf(writer, bucket), traceA, null))
    expect(error.code).toBe('RING2_E_DELETION')
    expect(error.actual).toContain('AccessDenied')
    proxy.behave(() => null)
    const report = await deleteTrace(contextOf(writer, bucket), traceA, null)
    expect(report).toMatchObject({ resumed: true, tensors: 1 })
    expect(await objectsWith(bucket, secretText)).toEqual([])
    expect(await objectsWith(bucket, traceA)).toEqual([])
    expect(await floatsOfB(writer)).toEqual([9, 8, 7, 6])
    const rows = writer.catalog.files().filter(({ dataset }) => dataset === 'tensors')
    expect(rows).toHaveLength(1)
  })

  test('does not begin when the bucket cannot be asked', async () => {
    const bucket = await openBucket()
    const writer = openExporter(bucket, temporaryFolder())
    await storeBoth(writer)
    const other = openExporter(bucket, temporaryFolder())
    proxy.behave(() => ({ kind: 'answer', status: 403, code: 'AccessDenied' }))
    const error = await errorOf(deleteTrace(contextOf(other, bucket), traceA, null))
    expect(error.code).toBe('RING2_E_STORE')
    proxy.behave(() => null)
    expect(await objectsWith(bucket, secretText)).toHaveLength(1)
  })
})

describe('Retention in a bucket', () => {
  test('removes only what its own catalogue knows, and tells the index', async () => {
    const bucket = await openBucket()
    const mine = openExporter(bucket, temporaryFolder())
    const others = openExporter(bucket, temporaryFolder())
    mine.flush([row()], [summary()], producer)
    const requestOther = { request: requestB, producer: otherProducer }
    others.flush([row(requestOther)], [summary(requestOther)], otherProducer)
    await mine.upload()
    await others.upload()
    const rules = { general: { ageMillis: null, bytesMax: 1 }, models: [] }
    const { location, store, catalog } = mine
    const facts = { location, store, catalog, rules, onRemoved: () => undefined }
    const report = await retentionPass(facts, noonMicros / 1000)
    expect(report).toMatchObject({ files: 1, requests: 0, left: 0 })
    expect(await mine.publisher.flush()).toBe(0)
    const third = openExporter(bucket, temporaryFolder())
    await third.find(traceA)
    await third.find(traceB)
    expect(third.catalog.requests(traceA)).toHaveLength(1)
    expect(third.catalog.series({ traceId: traceA })).toEqual([])
    expect(third.catalog.series({ traceId: traceB })).toHaveLength(1)
  })
})
