import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import type { Outcome } from '../../../collector/records.ts'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { keyOfFlatName } from '../../../exporter/store/keys.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { model, producer, request, row, summary, traceA } from './rows.ts'
import { temporaryFolder } from './temporary-folder.ts'

function open(root: string, state: string | null = null, url = root) {
  const location = locateStore(url, state)
  const sink = createTensorSink({ location, fsync: false })
  return { location, sink }
}

function value<T>(outcome: Outcome<T>): T {
  if (outcome.status !== 'success') throw outcome.error
  return outcome.value
}

function parquetFiles(root: string): string[] {
  const entries = readdirSync(root, { recursive: true }).map(String)
  return entries.filter((name) => name.endsWith('.parquet') && !name.startsWith('.ring2')).sort()
}

test('prepared files are invisible until they are published', () => {
  const root = temporaryFolder()
  const { sink, location } = open(root)
  sink.append(row())
  sink.append(row({ layer: 1 }))
  sink.finish(summary())
  expect(sink.pending()).toEqual({ rows: 2, bytes: 32, summaries: 1 })
  const files = value(sink.prepare(producer))
  expect(files).toHaveLength(2)
  expect(sink.pending()).toEqual({ rows: 0, bytes: 0, summaries: 0 })
  expect(parquetFiles(root)).toEqual([])
  value(sink.publish(files))
  const names = parquetFiles(root)
  expect(names).toHaveLength(2)
  const partition = 'model_slug=HuggingFaceTB-SmolLM2-135M-Instruct/date=2026-03-04'
  expect(names[0]).toMatch(
    new RegExp(`^requests/${partition}/chat-00c0ffee00c0ffee-[0-9A-Z]{26}\\.parquet$`),
  )
  expect(names[1]).toMatch(
    new RegExp(`^tensors/${partition}/hour=05/chat-00c0ffee00c0ffee-[0-9A-Z]{26}\\.parquet$`),
  )
  sink.close()
  const catalog = openCatalog(location.catalog)
  expect(catalog.series({ traceId: traceA })).toHaveLength(2)
  catalog.close()
})

test('nothing pending makes no file', () => {
  const { sink } = open(temporaryFolder())
  expect(value(sink.prepare(producer))).toEqual([])
})

test('rows of different hours and models go to files of their own', () => {
  const root = temporaryFolder()
  const { sink } = open(root)
  sink.append(row())
  sink.append(row({ capturedAtMicros: row().capturedAtMicros + 3_600_000_000 }))
  sink.append(row({ model: { ...model, name: '../../etc/passwd' } }))
  value(sink.publish(value(sink.prepare(producer))))
  const folders = parquetFiles(root).map((name) => name.split('/').slice(1, -1).join('/'))
  expect(folders).toEqual([
    'model_slug=HuggingFaceTB-SmolLM2-135M-Instruct/date=2026-03-04/hour=05',
    'model_slug=HuggingFaceTB-SmolLM2-135M-Instruct/date=2026-03-04/hour=06',
    'model_slug=etc-passwd/date=2026-03-04/hour=05',
  ])
})

test('publishing twice, and by another sink after a crash, leaves one file and one entry', () => {
  const root = temporaryFolder()
  const first = open(root)
  first.sink.append(row())
  const files = value(first.sink.prepare(producer))
  value(first.sink.publish(files))
  value(first.sink.publish(files))
  const second = open(root)
  value(second.sink.publish(files))
  expect(parquetFiles(root)).toHaveLength(1)
  const catalog = openCatalog(first.location.catalog)
  expect(catalog.files()).toHaveLength(1)
  expect(catalog.series({ traceId: traceA })).toHaveLength(1)
  catalog.close()
})

test('a sink that starts after a crash publishes what an earlier one prepared', () => {
  const root = temporaryFolder()
  const first = open(root)
  first.sink.append(row())
  first.sink.finish(summary())
  const files = value(first.sink.prepare(producer))
  const second = open(root)
  value(second.sink.discardExcept(producer, files))
  value(second.sink.publish(files))
  expect(parquetFiles(root)).toHaveLength(2)
  const catalog = openCatalog(first.location.catalog)
  expect(catalog.series({ traceId: traceA })).toHaveLength(1)
  expect(catalog.requests(traceA)[0]?.verdict).toBe('ok')
  catalog.close()
})

test('a crash between moving a file and cataloguing it is mended by publishing again', () => {
  const root = temporaryFolder()
  const first = open(root)
  first.sink.append(row())
  const files = value(first.sink.prepare(producer))
  value(first.sink.publish(files))
  const catalog = openCatalog(first.location.catalog)
  const key = catalog.files()[0]?.key ?? ''
  const described = join(first.location.spool, `${files[0]}.json`)
  writeFileSync(described, JSON.stringify({ ...descriptionOf(catalog, key) }))
  catalog.remove(key)
  expect(catalog.series({ traceId: traceA })).toEqual([])
  value(open(root).sink.publish(files))
  expect(catalog.series({ traceId: traceA })).toHaveLength(1)
  catalog.close()
})

function descriptionOf(catalog: ReturnType<typeof openCatalog>, key: string) {
  const file = catalog.files().find((one) => one.key === key)
  const series = catalog.series({ traceId: traceA }).map(({ key: _, ...rest }) => rest)
  return { ...file, series, requests: [] }
}

test('leftovers of a crash are removed unless a checkpoint names them', () => {
  const root = temporaryFolder()
  const { sink, location } = open(root)
  sink.append(row())
  const named = value(sink.prepare(producer))
  sink.append(row({ layer: 1 }))
  const leftover = value(sink.prepare(producer))
  const folder = join(location.spool, 'chat-00c0ffee00c0ffee')
  writeFileSync(join(folder, 'half.parquet.partial'), 'PAR1')
  const other = { ...producer, boot: 'ff' }
  sink.append(row({ layer: 2 }))
  const others = value(sink.prepare(other))
  value(open(root).sink.discardExcept(producer, named))
  const kept = named[0]?.split('/')[1] ?? ''
  expect(readdirSync(folder).sort()).toEqual([kept, `${kept}.json`])
  expect(existsSync(join(location.spool, leftover[0] ?? ''))).toBe(false)
  expect(existsSync(join(location.spool, others[0] ?? ''))).toBe(true)
})

test('a prepared file that is gone is an error that names it', () => {
  const root = temporaryFolder()
  const { sink } = open(root)
  sink.append(row())
  const files = value(sink.prepare(producer))
  value(sink.discardExcept(producer, []))
  const outcome = open(root).sink.publish(files)
  expect(outcome.status).toBe('failure')
  expect(outcome.status === 'failure' && outcome.error).toMatchObject({ code: 'RING2_E_STORE' })
})

test('a description that a power cut has emptied is named, and mended as the error says', () => {
  const root = temporaryFolder()
  const { sink, location } = open(root)
  sink.append(row())
  const files = value(sink.prepare(producer))
  const path = join(location.spool, files[0] ?? '')
  writeFileSync(`${path}.json`, '')
  const outcome = open(root).sink.publish(files)
  expect(outcome.status === 'failure' && outcome.error).toMatchObject({
    code: 'RING2_E_STORE',
    expected: expect.stringContaining(`${path}.json`),
  })
  const place = join(root, keyOfFlatName(basename(path)))
  mkdirSync(dirname(place), { recursive: true })
  renameSync(path, place)
  rmSync(`${path}.json`)
  value(open(root).sink.publish(files))
  expect(parquetFiles(root)).toHaveLength(1)
})

test('a name that is not one of the spool is refused', () => {
  const { sink } = open(temporaryFolder())
  for (const name of [
    '../../../etc/passwd',
    'chat-1/..,..,etc,passwd.parquet',
    '/etc/passwd',
    'chat-1/tensors,model=m,date=2026-01-01,hour=00,..,x.parquet',
    '',
  ]) {
    const outcome = sink.publish([name])
    expect(outcome.status).toBe('failure')
    expect(outcome.status === 'failure' && outcome.error).toMatchObject({ code: 'RING2_E_STORE' })
  }
})

test('a store on another file system than the spool gets the file by copy and rename', () => {
  const root = temporaryFolder()
  const elsewhere = temporaryFolder('/dev/shm')
  symlinkSync(elsewhere, join(root, 'tensors'))
  const { sink, location } = open(root)
  sink.append(row())
  value(sink.publish(value(sink.prepare(producer))))
  expect(readdirSync(elsewhere, { recursive: true }).filter(isParquet)).toHaveLength(1)
  expect(readdirSync(location.spool, { recursive: true }).filter(isParquet)).toEqual([])
})

function isParquet(name: string | Buffer): boolean {
  return String(name).endsWith('.parquet')
}

test('a spool that cannot be written keeps the rows and says which path refused', () => {
  const root = temporaryFolder()
  mkdirSync(join(root, '.ring2'))
  // A file where the folder should be refuses everyone, the superuser too.
  writeFileSync(join(root, '.ring2', 'spool'), '')
  const { sink, location } = open(root)
  sink.append(row())
  const outcome = sink.prepare(producer)
  expect(outcome.status).toBe('retryable')
  const error = outcome.status === 'retryable' ? outcome.error : null
  expect(error).toBeInstanceOf(Ring2Error)
  expect(error).toMatchObject({ code: 'RING2_E_STORE' })
  expect(error?.message).toContain(location.spool)
  expect(error?.message).toMatch(/ENOTDIR|EEXIST/)
  expect(sink.pending().rows).toBe(1)
})

test('requests of one id in two traces stay apart', () => {
  const root = temporaryFolder()
  const { sink, location } = open(root)
  const trace = 'c'.repeat(32)
  sink.append(row())
  sink.append(row({ request: request({ traceId: trace }) }))
  value(sink.publish(value(sink.prepare(producer))))
  const catalog = openCatalog(location.catalog)
  expect(catalog.series({ traceId: traceA })).toHaveLength(1)
  expect(catalog.series({ traceId: trace })).toHaveLength(1)
  catalog.close()
})
