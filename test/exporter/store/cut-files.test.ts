/**
 * Files that end too early, at any byte: each is named as damaged, none is catalogued, and the whole
 * files beside them stay readable.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import { floats, row, summary } from '../tensors/rows.ts'
import { asFloats, openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** Places to cut at: all around both ends, and some forty between. */
function cutsOf(bytes: number): number[] {
  const cuts = new Set<number>()
  for (let near = 0; near < 16; near++) cuts.add(near).add(bytes - 1 - near)
  for (let part = 1; part < 40; part++) cuts.add(Math.floor((bytes * part) / 40))
  return [...cuts].sort((left, right) => left - right)
}

test('a file that was cut at any byte is damaged, and the others are whole', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row({ data: floats(1, 2, 3, 4) }), row({ layer: 1 })], [summary()])
  const whole = fixture.catalog.files().map(({ key }) => key)
  expect(whole).toHaveLength(2)
  const cut = new Set<string>()
  for (const key of whole) {
    const bytes = readFileSync(join(root, key))
    for (const length of cutsOf(bytes.length)) {
      const name = key.replace('.parquet', `-cut-at-${length}.parquet`)
      mkdirSync(dirname(join(root, name)), { recursive: true })
      writeFileSync(join(root, name), bytes.subarray(0, length))
      cut.add(name)
    }
  }
  const store = createDirectoryStore(root)
  const rebuilt = join(temporaryFolder(), 'catalog.sqlite')
  const report = await rebuildCatalog(store, rebuilt)
  expect(report.files).toBe(whole.length)
  expect(new Set(report.damaged.map(({ key }) => key))).toEqual(cut)
  for (const { error } of report.damaged) expect(error.code).toBe('RING2_E_STORE')
  const catalog = openCatalog(rebuilt)
  onTestFinished(() => catalog.close())
  expect(
    catalog
      .files()
      .map(({ key }) => key)
      .sort(),
  ).toEqual([...whole].sort())
  const source = createParquetSource(store)
  const tensor = await createTensorReader({ catalog, source }).open(query())
  expect(asFloats(await tensor.read())).toEqual([1, 2, 3, 4])
})

test('a file that shrank after it was catalogued is an error, and no answer that looks whole', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row({ data: floats(1, 2, 3, 4) })])
  const key = fixture.catalog.files().find((file) => file.dataset === 'tensors')?.key ?? ''
  const bytes = readFileSync(join(root, key))
  for (const length of cutsOf(bytes.length)) {
    writeFileSync(join(root, key), bytes.subarray(0, length))
    const source = createParquetSource(fixture.store)
    const reader = createTensorReader({ catalog: fixture.catalog, source })
    const read = async () => (await reader.open(query())).read()
    await expect(read(), `cut at ${length}`).rejects.toMatchObject({ code: 'RING2_E_STORE' })
  }
})
