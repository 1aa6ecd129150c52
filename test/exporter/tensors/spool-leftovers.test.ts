/** What killed processes leave in the spool is dealt with when an exporter starts. */
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { writeCheckpoint } from '../../../collector/checkpoint.ts'
import { createSegmentSet } from '../../../exporter/pipeline/segment-set.ts'
import { clearSpool } from '../../../exporter/pipeline/spool-leftovers.ts'
import { producer, request, row, summary, traceA, traceB } from './rows.ts'
import { openFixture } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

const none = { model: null, requests: [] } as never

function prepared(fixture: ReturnType<typeof openFixture>, from = producer): readonly string[] {
  fixture.sink.append(row())
  fixture.sink.finish(summary())
  const outcome = fixture.sink.prepare(from)
  if (outcome.status !== 'success') throw outcome.error
  return outcome.value
}

test('files of a segment that no checkpoint names are removed, also the half written ones', () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const { spool } = fixture.location
  const [name = ''] = prepared(fixture)
  writeFileSync(join(spool, `${name}.partial`), 'PAR1')
  expect(clearSpool(spool, fixture.sink)).toBe(3)
  expect(readdirSync(spool)).toEqual([])
  expect(fixture.catalog.files()).toEqual([])
})

test('files of a segment that has a checkpoint, a damaged one too, stay', () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const { spool } = fixture.location
  const files = prepared(fixture)
  const other = prepared(fixture, { ...producer, boot: '00000000000000ff' })
  const facts = { directory: '/dev/shm', position: 1, files, steps: [], registry: none }
  expect(writeCheckpoint(spool, producer, facts, false).status).toBe('success')
  writeFileSync(join(spool, 'chat-00000000000000ff.checkpoint.json'), '')
  expect(clearSpool(spool, fixture.sink)).toBe(0)
  for (const name of [...files, ...other]) expect(existsSync(join(spool, name))).toBe(true)
})

test('late contexts of an exporter that was killed are published once, and the rest is removed', () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const { spool } = fixture.location
  fixture.flush([row()], [summary()])
  const writer = { segment: 'contexts', boot: String(process.pid), host: 'host-1', pid: 0 }
  const moved = request({ traceId: traceB, storedTraceId: traceA } as never)
  fixture.sink.moved(summary({ request: moved }))
  expect(fixture.sink.prepare(writer).status).toBe('success')
  const folder = join(spool, `contexts-${process.pid}`)
  const [file = ''] = readdirSync(folder)
  writeFileSync(join(folder, `half-${file}`), 'PAR1')
  expect(clearSpool(spool, fixture.sink)).toBe(1)
  expect(clearSpool(spool, fixture.sink)).toBe(0)
  expect(existsSync(folder)).toBe(false)
  expect(fixture.catalog.files().filter(({ key }) => key.startsWith('contexts/'))).toHaveLength(1)
  expect(fixture.catalog.requests(traceB).map((one) => one.request_id)).toEqual(['request-1'])
})

test('an import is left alone until nothing has been written for it for a while', () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const { spool } = fixture.location
  const folder = join(spool, 'import-0123456789abcdef')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'a.parquet.partial'), 'PAR1')
  expect(clearSpool(spool, fixture.sink)).toBe(0)
  const before = new Date(Date.now() - 3_600_000)
  utimesSync(join(folder, 'a.parquet.partial'), before, before)
  utimesSync(folder, before, before)
  expect(clearSpool(spool, fixture.sink)).toBe(1)
  expect(existsSync(folder)).toBe(false)
})

test('an exporter that starts removes what was left for a segment that is gone', () => {
  const fixture = openFixture(temporaryFolder())
  prepared(fixture)
  const messages: string[] = []
  const segments = createSegmentSet(
    {
      segmentsDirectory: temporaryFolder(),
      segmentNames: ['*'],
      stats: ['all'],
      tensors: ['all'],
      statistics: [],
      verdictRules: ['nonfinite'],
      baselines: { baselines: [], fault: null },
      location: fixture.location,
      fsync: false,
      host: 'host-1',
      flushMillis: 0,
      flushBytes: 1,
      intervalMillis: 0,
      batchSlices: 16,
      batchBytes: 1024,
      requestsMax: 1,
      requestIdleMicros: 1,
      contextWaitMillis: 0,
    },
    { onRequestEnd: () => undefined, onEvent: ({ message }) => void messages.push(message) },
  )
  segments.discover()
  segments.stop(0)
  expect(readdirSync(fixture.location.spool)).toEqual([])
  expect(messages).toEqual(['removed unfinished files of the spool'])
})
