/** How many requests reach the store for a file, and what is said of files that are not whole. */
import { rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { answerLimits } from '../../../exporter/limits.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { createRangeReader } from '../../../exporter/parquet/range-reader.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { recordColumnsOf } from '../../../exporter/tensors/records.ts'
import { watchedBucket } from '../catalog/bucket-fixture.ts'
import { floats, row } from '../tensors/rows.ts'
import { asFloats, openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** A file of many rows, whose tail is more than is read at once of an unknown one. */
function longFile() {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush(
    Array.from({ length: 6000 }, (_, step) =>
      row({ step, tokenStart: step, tokenEnd: step + 1, data: floats(step, 0, 0, 0) }),
    ),
  )
  const [file] = fixture.catalog.files()
  if (file?.tail_start == null) throw new Error('no file with a tail')
  expect(file.bytes - file.tail_start).toBeGreaterThan(answerLimits.footerFetchBytes)
  return { root, fixture, file, ...watchedBucket(createDirectoryStore(root)) }
}

test('a file whose tail is known is opened by one request, and its columns cost none', async () => {
  const { bucket, asked, file } = longFile()
  const known = { bytes: file.bytes, tailStart: file.tail_start }
  const source = createParquetSource(bucket, { knownFile: () => known })
  const columns = recordColumnsOf(await source.columns(file.key))
  expect(await source.read(file.key, columns, 3000, 3064)).toHaveLength(64)
  expect(asked).toEqual(['getRange'])
  expect(await source.read(file.key, ['data'], 3000, 3064)).toHaveLength(64)
  expect(asked).toEqual(['getRange', 'getRange'])
  expect(await source.tailStart(file.key)).toBe(file.tail_start)
})

test('of a file of an earlier version ranges that lie together are read together', async () => {
  const { bucket, asked, file } = longFile()
  const source = createParquetSource(bucket)
  const columns = recordColumnsOf(await source.columns(file.key))
  expect(asked).toEqual(['size', 'getRange'])
  const rows = await source.read(file.key, columns, 3000, 3064)
  expect(rows.map((one) => Number(one.step))).toEqual(
    Array.from({ length: 64 }, (_, i) => 3000 + i),
  )
  // Indexes of the columns and then their pages: 27 columns, some few requests.
  expect(asked.length).toBeLessThanOrEqual(6)
})

test('neighbouring ranges are one request, distant ones are not, and each gets its own bytes', async () => {
  const asked: [number, number][] = []
  const far = 10 * answerLimits.rangeGapBytesMax
  const reader = createRangeReader(async (start, end) => {
    asked.push([start, end])
    return Uint8Array.from({ length: end - start }, (_, index) => (start + index) % 251)
  })
  const wanted: [number, number][] = [
    [far, far + 3],
    [0, 4],
    [10, 12],
    [2, 11],
    [far + 3, far + 5],
  ]
  const read = await Promise.all(wanted.map(([start, end]) => reader.read(start, end)))
  for (const [index, [start, end]] of wanted.entries()) {
    const bytes = Array.from({ length: end - start }, (_, offset) => (start + offset) % 251)
    expect([...new Uint8Array(read[index] ?? new ArrayBuffer(0))]).toEqual(bytes)
  }
  expect(asked).toEqual([
    [0, 12],
    [far, far + 5],
  ])
  const failing = createRangeReader(async () => {
    throw new Error('gone')
  })
  const results = await Promise.allSettled([failing.read(0, 1), failing.read(1, 2)])
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
})

test('a file that was cut, emptied, overwritten or removed is named, and the others are read', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()])
  const [victim] = fixture.catalog.files()
  const key = victim?.key ?? ''
  fixture.flush([row({ step: 1, tokenStart: 1, tokenEnd: 2, data: floats(5, 6, 7, 8) })])
  const path = join(root, key)
  const damages = [
    () => truncateSync(path, statSync(path).size - 1),
    () => truncateSync(path, 100),
    () => writeFileSync(path, 'PAR1'),
    () => writeFileSync(path, ''),
    () => writeFileSync(path, Buffer.alloc(5000, 0xff)),
    () => rmSync(path),
  ]
  for (const damage of damages) {
    damage()
    const reader = fixture.reader()
    await expect(reader.open(query())).rejects.toMatchObject({
      code: 'RING2_E_STORE',
      message: expect.stringContaining(key),
    })
    const rest = await reader.open(query({ tokens: { start: 1, end: 2 } }))
    expect(asFloats(await rest.read())).toEqual([5, 6, 7, 8])
  }
  await expect(fixture.reader().open(query())).rejects.toMatchObject({
    action: expect.stringContaining('catalog rebuild'),
  })
})

test('a size that the catalogue has wrong is asked of the store', async () => {
  const { bucket, file } = longFile()
  for (const known of [
    { bytes: file.bytes - 1, tailStart: file.tail_start },
    { bytes: file.bytes + 9, tailStart: file.tail_start },
    { bytes: 1, tailStart: null },
  ]) {
    const source = createParquetSource(bucket, { knownFile: () => known })
    expect(await source.rows(file.key)).toBe(6000)
  }
})
