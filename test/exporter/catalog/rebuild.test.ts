import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import type { Catalog } from '../../../exporter/catalog/catalog.ts'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
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
  const folder = dirname(fixture.location.catalog)
  const [old, young] = ['old', 'young'].map((name) => `catalog.sqlite.rebuild-${name}`)
  for (const name of [old, young]) writeFileSync(join(folder, name ?? ''), 'half')
  utimesSync(join(folder, old ?? ''), 1, 1)
  await rebuildCatalog(fixture.store, fixture.location.catalog)
  const left = readdirSync(folder).filter((name) => name.includes('rebuild'))
  expect(left).toEqual([young])
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
