/** Catalogues that are damaged: always named, never silently empty, and mended by a rebuild. */
import { copyFileSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { catalogDoubt } from '../../../exporter/tensors/open.ts'
import { request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** A store whose catalogue has several pages of each table, closed and without a journal. */
function closedStore() {
  const fixture = openFixture(temporaryFolder())
  const rows = Array.from({ length: 60 }, (_, index) =>
    row({ layer: index, request: request({ requestId: `r${index % 7}` }) }),
  )
  fixture.flush(rows, [summary(), summary({ request: request({ traceId: traceB }) })])
  const contents = contentsOf(fixture.location.catalog)
  fixture.catalog.close()
  fixture.sink.close()
  const database = new DatabaseSync(fixture.location.catalog)
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  const pageBytes = Number(database.prepare('PRAGMA page_size').get()?.page_size)
  database.close()
  return { ...fixture, contents, pageBytes, path: fixture.location.catalog }
}

function contentsOf(path: string) {
  const catalog = openCatalog(path)
  try {
    return {
      files: catalog.files(),
      requests: [traceA, traceB].map((traceId) => catalog.requests(traceId)),
      series: [traceA, traceB].map((traceId) => catalog.series({ traceId })),
      page: catalog.list({}),
    }
  } finally {
    catalog.close()
  }
}

/** The error that reading gives, or what was read. */
function readOr(path: string) {
  try {
    return contentsOf(path)
  } catch (error) {
    return error
  }
}

const named = {
  code: 'RING2_E_STORE',
  message: expect.stringContaining('catalog'),
  action: expect.stringContaining('catalog rebuild'),
}

test('truncated at any page it is an error that names it, and a rebuild mends it', async () => {
  const { path, pageBytes, contents, store } = closedStore()
  const whole = `${path}.whole`
  copyFileSync(path, whole)
  const pages = statSync(path).size / pageBytes
  expect(pages).toBeGreaterThan(20)
  for (let kept = 1; kept < pages; kept += 1) {
    for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
    copyFileSync(whole, path)
    truncateSync(path, kept * pageBytes)
    expect(readOr(path)).toMatchObject(named)
    if (kept % 8 !== 1) continue
    const report = await rebuildCatalog(store, path)
    expect(report.setAside).toBe(`${path}.damaged`)
    expect(readOr(path)).toEqual(contents)
  }
})

test('pages of garbage are an error or harmless, and a rebuild mends them', async () => {
  const { path, pageBytes, contents, store } = closedStore()
  const whole = readFileSync(path)
  const pages = whole.byteLength / pageBytes
  for (let page = 0; page < pages; page += 1) {
    for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
    const damaged = Buffer.from(whole)
    damaged.fill(0xa5, page * pageBytes, (page + 1) * pageBytes)
    writeFileSync(path, damaged)
    const read = readOr(path)
    if (read instanceof Error) expect(read).toMatchObject(named)
    else expect(read).toEqual(contents)
    if (page % 8 !== 1) continue
    await rebuildCatalog(store, path)
    expect(readOr(path)).toEqual(contents)
  }
})

test('a catalogue of zero bytes, or a new one beside files, is doubted and not taken for all', async () => {
  const { path, contents, store, location } = closedStore()
  writeFileSync(path, '')
  const catalog = openCatalog(path)
  expect(catalogDoubt(location, catalog)).toMatchObject(named)
  catalog.close()
  await rebuildCatalog(store, path)
  expect(readOr(path)).toEqual(contents)
  const rebuilt = openCatalog(path)
  expect(catalogDoubt(location, rebuilt)).toBeNull()
  rebuilt.close()
  // A store that is really empty is not doubted.
  const empty = openFixture(temporaryFolder())
  expect(catalogDoubt(empty.location, empty.catalog)).toBeNull()
})

test('a catalogue that is open while it is mended is used as it was mended', async () => {
  const { path, contents, store } = closedStore()
  const open = openCatalog(path)
  expect(open.files()).toHaveLength(contents.files.length)
  writeFileSync(path, 'no database')
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
  await rebuildCatalog(store, path)
  expect(open.files()).toEqual(contents.files)
  expect(open.series({ traceId: traceA })).toEqual(contents.series[0])
  open.close()
})

test('two rebuilds at the same time leave one whole catalogue, of a damaged one too', async () => {
  const { path, contents, store } = closedStore()
  for (const content of [null, 'garbage']) {
    if (content !== null) writeFileSync(path, content)
    await Promise.all([rebuildCatalog(store, path), rebuildCatalog(store, path)])
    expect(readOr(path)).toEqual(contents)
  }
})

test('a catalogue that is locked is left alone by a rebuild, and stays as it was', async () => {
  const { path, contents, store } = closedStore()
  rmSync(`${path}-wal`, { force: true })
  const holder = new DatabaseSync(path)
  holder.exec('BEGIN IMMEDIATE')
  try {
    await expect(rebuildCatalog(store, path)).rejects.toThrow(/locked/)
  } finally {
    holder.exec('ROLLBACK')
    holder.close()
  }
  expect(readOr(path)).toEqual(contents)
}, 60_000)
