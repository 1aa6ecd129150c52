import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { createBeside } from '../../../exporter/catalog/beside.ts'
import type { Catalog } from '../../../exporter/catalog/catalog.ts'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { removalLock, takeLock } from '../../../exporter/catalog/process-lock.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { writeParquetFile } from '../../../exporter/parquet/file-writer.ts'
import { requestColumns, SCHEMA_VERSION } from '../../../exporter/parquet/schema.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { datasets } from '../../../exporter/store/keys.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { model, noonMicros, request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

function contents(catalog: Catalog) {
  const traces = [traceA, traceB]
  return {
    files: catalog.files(),
    requests: traces.map((trace) => catalog.requests(trace)),
    series: traces.map((trace) => catalog.series({ traceId: trace })),
    page: catalog.list({}),
  }
}

function fill(root: string) {
  const fixture = openFixture(root)
  const open = request({ traceId: traceB, requestId: 'öffen' })
  fixture.flush([
    row(),
    row({ layer: 1, ranks: { tp: 1, pp: 0, dp: 0, ep: 0 } }),
    row({ request: open, capturedAtMicros: noonMicros + 5 }),
  ])
  fixture.flush(
    [
      row({ step: 1, tokenStart: 1, tokenEnd: 2 }),
      row({ request: open, model: { ...model, name: 'second/model' }, hook: 'pattern' }),
    ],
    [summary({ verdict: 'unknown' })],
  )
  // The request ended once more: the later summary counts, also after a rebuild.
  fixture.flush([], [summary({ verdict: 'nonfinite', nan: 3 })])
  return fixture
}

test('a catalogue made again from the files equals the one that grew with them', async () => {
  const fixture = fill(temporaryFolder())
  const before = contents(fixture.catalog)
  expect(before.requests[0]?.[0]?.verdict).toBe('nonfinite')
  expect(before.requests[1]?.[0]).toMatchObject({ request_id: 'öffen', ended_at: null })
  fixture.catalog.close()
  fixture.sink.close()
  rmSync(fixture.location.catalog)
  const report = await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(report).toMatchObject({ files: 5, rows: 7, damaged: [], setAside: null })
  const catalog = openCatalog(fixture.location.catalog)
  expect(contents(catalog)).toEqual(before)
  catalog.close()
})

test('a rebuild beside an open catalogue replaces its contents', async () => {
  const fixture = fill(temporaryFolder())
  const before = contents(fixture.catalog)
  for (const file of fixture.catalog.files()) fixture.catalog.remove(file.key)
  expect(fixture.catalog.series({ traceId: traceA })).toEqual([])
  await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(contents(fixture.catalog)).toEqual(before)
})

test('what a killed rebuild left is removed, and nothing stays of one that ends', async () => {
  const fixture = fill(temporaryFolder())
  const { catalog } = fixture.location
  const running = createBeside(catalog)
  for (const path of [`${catalog}.rebuild-killed`, running.path]) {
    for (const suffix of ['', '-wal', '-shm']) writeFileSync(path + suffix, 'half')
  }
  await rebuildCatalog(fixture.store, catalog)
  const left = () => readdirSync(dirname(catalog)).filter((name) => name.includes('rebuild-'))
  expect(left().filter((name) => !name.startsWith(basename(running.path)))).toEqual([])
  expect(left()).toContain(basename(running.path))
  running.remove()
  expect(left()).toEqual([])
})

test('a row of a request that is damaged costs its file alone', async () => {
  for (const text of ['{"half":', '{"half": 1}', '[null]']) {
    const root = temporaryFolder()
    const fixture = fill(root)
    const requests = fixture.catalog.files().filter(({ dataset }) => dataset === 'requests')
    const [first] = requests
    const key = first?.key ?? ''
    writeParquetFile({
      path: join(root, key),
      columns: requestColumns.map((one) =>
        one.name === 'summary' ? { ...one, value: () => text } : one,
      ),
      payload: null,
      rows: [summary()],
      metadata: { 'ring2.schema': SCHEMA_VERSION },
      fsync: false,
    })
    const report = await rebuildCatalog(fixture.store, fixture.location.catalog)
    expect(report.damaged.map((one) => one.key)).toEqual([key])
    expect(report.damaged[0]?.error.message).toContain(`the summary of a request in ${key}`)
    expect(fixture.catalog.files()).toHaveLength(4)
  }
})

/** Does something after the store's files were listed for the n-th time. */
function afterListing(store: ObjectStore, turn: number, act: () => unknown): ObjectStore {
  let turns = 0
  async function* list(prefix: string) {
    yield* store.list(prefix)
    // The last of the datasets.
    if (!prefix.startsWith(datasets.at(-1) ?? '')) return
    turns += 1
    if (turns === turn) act()
  }
  return { ...store, list }
}

test('a trace that is deleted while a rebuild runs stays deleted', async () => {
  const fixture = fill(temporaryFolder())
  const { location, catalog, store } = fixture
  const context = { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
  let deletion: Promise<unknown> = Promise.resolve()
  await rebuildCatalog(store, location.catalog, (done, total) => {
    // All files are described now, and the contents not yet replaced.
    if (done === total) deletion = deleteTrace(context, traceA, null)
  })
  expect(await deletion).toMatchObject({ requests: 1, tensors: 3 })
  expect(catalog.requests(traceA)).toEqual([])
  expect(catalog.series({ traceId: traceA })).toEqual([])
  expect(catalog.requests(traceB)).toHaveLength(1)
  const present: string[] = []
  for await (const { key } of store.list('')) present.push(key)
  expect(catalog.files().map(({ key }) => key)).toEqual(present.sort())
})

test('a rebuild waits for a deletion as long as it may, and changes nothing then', async () => {
  const fixture = fill(temporaryFolder())
  const { location, store } = fixture
  const before = contents(fixture.catalog)
  const unlock = takeLock(removalLock(location.catalog), 0)
  await expect(rebuildCatalog(store, location.catalog, () => undefined, 1)).rejects.toMatchObject({
    code: 'RING2_E_UNSETTLED',
  })
  unlock?.()
  expect(contents(fixture.catalog)).toEqual(before)
})

test('files that are published at any moment of a rebuild are in the catalogue', async () => {
  for (const turn of [1, 2]) {
    const fixture = fill(temporaryFolder())
    const { location, store } = fixture
    const slow = afterListing(store, turn, () => fixture.flush([row({ step: 9, layer: 9 })]))
    await rebuildCatalog(slow, location.catalog)
    expect(fixture.catalog.series({ traceId: traceA, layer: 9 })).toHaveLength(1)
    expect(fixture.catalog.files()).toHaveLength(6)
  }
})

test('damaged files are named and passed over, and the rest stays readable', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()])
  const folder = dirname(join(root, fixture.catalog.files()[0]?.key ?? ''))
  writeFileSync(join(folder, 'chat-1-cut.parquet'), 'PAR1 not a file PAR1')
  writeFileSync(join(folder, 'chat-1-empty.parquet'), '')
  writeFileSync(join(folder, 'half.parquet.partial'), 'PAR1')
  writeFileSync(join(folder, 'notes.txt'), 'not ours')
  mkdirSync(join(root, 'tensors', 'model=..'), { recursive: true })
  const report = await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(report.files).toBe(1)
  const names = report.damaged.map((one) => one.key.split('/').at(-1)).sort()
  expect(names).toEqual(['chat-1-cut.parquet', 'chat-1-empty.parquet'])
  for (const one of report.damaged) expect(one.error.code).toBe('RING2_E_STORE')
  const opened = await fixture.reader().open(query())
  expect((await opened.read()).byteLength).toBe(16)
})

test('a database that is not one is set aside, and the rebuild makes a new one', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()])
  fixture.catalog.close()
  fixture.sink.close()
  const path = fixture.location.catalog
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
  writeFileSync(path, 'this is no database, whatever its name says'.repeat(100))
  expect(() => openCatalog(path)).toThrow(/RING2_E_STORE.*catalog/)
  const report = await rebuildCatalog(fixture.store, path)
  expect(report.setAside).toBe(`${path}.damaged`)
  expect(readdirSync(dirname(path))).toContain('catalog.sqlite.damaged')
  const catalog = openCatalog(path)
  expect(catalog.series({ traceId: traceA })).toHaveLength(1)
  catalog.close()
})
