/** Traces of a bucket that several exporters write: found by the trace's own prefix. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { decodeIndex, encodeIndex } from '../../../exporter/catalog/trace-index.ts'
import { createTracePublisher } from '../../../exporter/catalog/trace-publisher.ts'
import { rebuildIndexes } from '../../../exporter/catalog/trace-rebuild.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { isIndexKey } from '../../../exporter/store/keys.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'
import {
  floats,
  otherModel,
  otherProducer,
  request,
  row,
  summary,
  traceA,
  traceB,
} from '../tensors/rows.ts'
import { asFloats, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { openExporter, watchedBucket } from './bucket-fixture.ts'

const FRESH_MILLIS = 10_000

function openBucket() {
  const root = temporaryFolder()
  return { root, ...watchedBucket(createDirectoryStore(root)) }
}

function indexNames(root: string): string[] {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' })
  return names.filter((name) => isIndexKey(name)).sort()
}

test('what one exporter stored is found and read by another, with three requests and the payload', async () => {
  const { bucket, asked } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  const second = openExporter(bucket, temporaryFolder())
  first.flush([row(), row({ layer: 1, data: floats(5, 6, 7, 8) })], [summary()])
  expect(await first.upload()).toBe(0)
  expect(second.catalog.requests(traceA)).toEqual([])
  asked.length = 0
  expect(await second.find(traceA)).toEqual([])
  const opened = await second.reader().open(query({ layer: 1 }))
  expect(asked).toEqual(['list', 'read', 'getRange'])
  expect(asFloats(await opened.read())).toEqual([5, 6, 7, 8])
  expect(asked).toEqual(['list', 'read', 'getRange', 'getRange'])
  expect(second.catalog.requests(traceA)).toEqual(first.catalog.requests(traceA))
  expect(second.catalog.series({ traceId: traceA })).toEqual(
    first.catalog.series({ traceId: traceA }),
  )
  // The same trace a moment later costs nothing, and after a while one request.
  asked.length = 0
  await second.find(traceA)
  expect(asked).toEqual([])
  second.wait(FRESH_MILLIS)
  await second.find(traceA)
  expect(asked).toEqual(['list'])
})

test('parts of one trace that two exporters stored are found together', async () => {
  const { bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  const second = openExporter(bucket, temporaryFolder())
  const ofDraft = { model: otherModel, producer: otherProducer }
  first.flush([row()], [summary()])
  second.flush([row({ ...ofDraft, data: floats(9, 9, 9, 9) })], [summary(ofDraft)], otherProducer)
  await first.upload()
  await second.upload()
  for (const one of [first, second]) {
    expect(await one.find(traceA)).toEqual([])
    expect(one.catalog.requests(traceA).map(({ producer }) => producer)).toEqual([
      'chat-00c0ffee00c0ffee',
      'draft-00c0ffee00c0ffee',
    ])
  }
})

test("a request is found by its caller's trace from another machine", async () => {
  const { root, bucket } = openBucket()
  const callersTrace = 'c'.repeat(32)
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()], [summary()])
  await first.upload()
  first.sink.moved(summary({ request: request({ traceId: callersTrace, storedTraceId: traceA }) }))
  first.flush([])
  await first.upload()
  // The index without the alias has been replaced.
  expect(indexNames(root).map((name) => name.split('/')[2])).toEqual([traceA, callersTrace])
  const second = openExporter(bucket, temporaryFolder())
  await second.find(callersTrace)
  expect(second.catalog.requests(callersTrace)).toMatchObject([{ trace_id: traceA }])
})

test('an index is written when its request has ended and its files are in the bucket', async () => {
  const { root, bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()])
  await first.upload()
  expect(indexNames(root)).toEqual([])
  first.flush([row({ step: 1, tokenStart: 1, tokenEnd: 2 })], [summary()])
  // Its file waits in the queue.
  expect(await first.publisher.flush()).toBe(1)
  expect(indexNames(root)).toEqual([])
  expect(await first.upload()).toBe(0)
  const [before] = indexNames(root)
  // Rows that come late: the index tells of them too, and there is one.
  first.flush([row({ step: 2, tokenStart: 2, tokenEnd: 3 })])
  await first.upload()
  const after = indexNames(root)
  expect(after).toHaveLength(1)
  expect(after[0]).not.toBe(before)
  const index = decodeIndex(after[0] ?? '', readFileSync(join(root, after[0] ?? '')))
  expect(index.series.map(({ token_end }) => token_end)).toEqual([1, 2, 3])
})

test('what is due outlives a crash, and a bucket that is down', async () => {
  const { root, bucket, state } = openBucket()
  const folder = temporaryFolder()
  const first = openExporter(bucket, folder)
  first.flush([row()], [summary()])
  state.down = true
  expect(await first.publisher.flush()).toBe(1)
  state.down = false
  first.catalog.close()
  // Another process begins where the first one ended.
  const again = openExporter(bucket, folder)
  expect(await again.upload()).toBe(0)
  expect(indexNames(root)).toHaveLength(1)
})

test('an index that waits for its files holds up no other', async () => {
  const { root, bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  const many = Array.from({ length: 40 }, (_, index) => request({ requestId: `r${index}` }))
  for (const one of many) first.flush([row({ request: one })], [summary({ request: one })])
  const last = request({ requestId: 'statistics only' })
  first.flush([], [summary({ request: last })])
  await first.publisher.flush()
  await first.publisher.flush()
  await first.publisher.flush()
  expect(indexNames(root)).toHaveLength(1)
  expect(await first.upload()).toBe(0)
  expect(indexNames(root)).toHaveLength(41)
})

test('a bucket that is down leaves what is known, and says so; of the unknown it is an error', async () => {
  const { bucket, state } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()], [summary()])
  await first.upload()
  state.down = true
  const problems = await first.find(traceA)
  expect(problems.map((problem) => problem.actual)).toEqual(['the bucket is down'])
  await expect(first.find(traceB)).rejects.toThrow(/the bucket is down/)
})

test('an index whose request is deleted while it is written is removed again', async () => {
  const { root, bucket } = openBucket()
  const state = temporaryFolder()
  const first = openExporter(bucket, state)
  first.flush([row()], [summary()])
  const uploader = createUploader({
    queue: first.location.queue,
    bucket,
    onError: (error) => expect(error).toBeNull(),
  })
  expect(await uploader.flush(10_000)).toBe(0)
  await uploader.stop()
  const entered = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const slow: ObjectStore = {
    ...bucket,
    putBytes: async (key, bytes, options) => {
      entered.resolve()
      await goOn.promise
      return bucket.putBytes(key, bytes, options)
    },
  }
  const { catalog, location } = first
  const onError = (error: Error) => expect(error).toBeNull()
  const publisher = createTracePublisher({ catalog, bucket: slow, queue: location.queue, onError })
  const writing = publisher.flush()
  await entered.promise
  const other = openExporter(bucket, state)
  await deleteTrace({ ...other, bucket, fsync: false }, traceA, null)
  goOn.resolve()
  expect(await writing).toBe(0)
  expect(indexNames(root)).toEqual([])
  expect(catalog.indexes.knownOfTrace(traceA)).toEqual([])
  await publisher.stop()
})

test('a damaged index is named and passed over, and the rebuild mends it', async () => {
  const { root, bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  const other = request({ requestId: 'other' })
  first.flush([row(), row({ request: other })], [summary(), summary({ request: other })])
  await first.upload()
  const [damaged = '', whole = ''] = indexNames(root)
  const before = readFileSync(join(root, damaged))
  const wrong = [
    '',
    '{',
    '[]',
    '{"ring2_trace_index":2}',
    before.subarray(0, before.length / 2),
    before.toString().replace('"rows":', '"rows":"x","was":'),
    before.toString().replaceAll('tensors/', '../tensors/'),
    before.toString().replaceAll(traceA, traceB),
    // Valid in every field, and not what was written.
    before.toString().replace('[0,0,1,', '[0,1,1,'),
  ]
  for (const content of wrong) {
    writeFileSync(join(root, damaged), content)
    const second = openExporter(bucket, temporaryFolder())
    const problems = await second.find(traceA)
    expect(problems).toMatchObject([
      { code: 'RING2_E_STORE', expected: expect.stringContaining(damaged) },
    ])
    expect(second.catalog.requests(traceA)).toHaveLength(1)
  }
  // A machine without any state rebuilds all of it.
  const third = openExporter(bucket, temporaryFolder())
  await rebuildCatalog(third.store, third.location.catalog)
  await bucket.delete(damaged)
  const report = await rebuildIndexes(third.catalog, bucket, third.location.queue)
  expect(report).toEqual({ due: 0, removed: 0, errors: [] })
  expect(indexNames(root)).toEqual([damaged, whole].sort())
  expect(readFileSync(join(root, damaged))).toEqual(before)
})

test('a rebuild removes indexes of what is gone, and leaves what others write meanwhile', async () => {
  const { root, bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()], [summary()])
  const second = openExporter(bucket, temporaryFolder())
  const gone = request({ traceId: traceB, requestId: 'gone' })
  second.flush([row({ request: gone })], [summary({ request: gone })])
  await first.upload()
  await second.upload()
  for (const { key } of second.catalog.files()) await bucket.delete(key)
  writeFileSync(join(root, 'catalog/aa', traceA, 'chat-0-0.json'), 'garbage')
  const third = openExporter(bucket, temporaryFolder())
  await rebuildCatalog(third.store, third.location.catalog)
  // Written after the files were read.
  const late = request({ traceId: 'd'.repeat(32), requestId: 'late' })
  first.flush([row({ request: late })], [summary({ request: late })])
  await first.upload()
  const report = await rebuildIndexes(third.catalog, bucket, third.location.queue)
  expect(report).toEqual({ due: 0, removed: 2, errors: [] })
  const traces = indexNames(root).map((name) => name.split('/')[2])
  expect(traces).toEqual([traceA, late.traceId])
})

test('what another exporter deleted is forgotten here at the next look', async () => {
  const { root, bucket } = openBucket()
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()], [summary()])
  await first.upload()
  const second = openExporter(bucket, temporaryFolder())
  await second.find(traceA)
  expect(second.catalog.series({ traceId: traceA })).toHaveLength(1)
  rmSync(join(root, 'catalog'), { recursive: true })
  second.wait(FRESH_MILLIS)
  await second.find(traceA)
  expect(second.catalog.requests(traceA)).toEqual([])
  expect(second.catalog.series({ traceId: traceA })).toEqual([])
})

test('spans of what others stored are not sent again here', async () => {
  const { bucket } = openBucket()
  const now = Date.now() * 1000
  const ended = summary({
    request: request({ startedAtMicros: now }),
    endedAtMicros: now + 1,
  })
  const first = openExporter(bucket, temporaryFolder())
  first.flush([row()], [ended])
  await first.upload()
  const second = openExporter(bucket, temporaryFolder())
  expect(second.catalog.unsent(now - 1_000_000).keys).toEqual([])
  await second.find(traceA)
  expect(second.catalog.unsent(now + 2).keys).toEqual([])
})

test("the texts of a request's tokens are found with it", async () => {
  const { bucket } = openBucket()
  const model = { ...row().model, vocabularyFingerprint: 'f1' }
  const first = openExporter(bucket, temporaryFolder())
  const file = 'vocabularies/model_slug=m/date=2026-03-04/chat-01K00000000000000000000000.parquet'
  const parts = [0, 1].map((part) => ({ fingerprint: 'f1', part, parts: 2, model: 'm', row: part }))
  const described = { key: file, dataset: 'vocabularies', bytes: 9, rows: 2 } as const
  first.catalog.add({ ...described, series: [], requests: [], vocabularies: parts })
  first.flush([row({ model })], [summary({ model })])
  await first.upload()
  const second = openExporter(bucket, temporaryFolder())
  await second.find(traceA)
  expect(second.catalog.vocabulary('f1')).toEqual(first.catalog.vocabulary('f1'))
  expect(second.catalog.vocabulary('f1')).toHaveLength(2)
  expect(second.catalog.file(file)).toMatchObject({ bytes: 9 })
})

test('ids with any character make one safe key each', () => {
  const ids = ['../../etc/passwd', 'a*b?[c]', '', 'ö/ü', 'x'.repeat(5000), '\n\u0000', '%2e%2e']
  const keys = ids.map((requestId) => {
    const entry = {
      trace_id: traceA,
      request_id: requestId,
      producer: requestId,
      span_id: null,
      model: 'm',
      model_revision: '',
      engine: 'e',
      host: 'h',
      started_at: 1,
      summary: null,
    }
    const whole = { request: entry, aliases: [], files: [], series: [], vocabulary: [] }
    const {
      keys: [key = ''],
      bytes,
    } = encodeIndex(whole)
    expect(isIndexKey(key)).toBe(true)
    expect(decodeIndex(key, bytes)).toEqual(whole)
    return key
  })
  expect(new Set(keys).size).toBe(ids.length)
})
