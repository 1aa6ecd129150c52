/** Packed rows against the same rows as objects: files and descriptions must not differ in a byte. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { compareRows, describeTensors, placeOf } from '../../../exporter/catalog/description.ts'
import { writeParquetFile, writeParquetSource } from '../../../exporter/parquet/file-writer.ts'
import { tensorColumns, tensorPayload } from '../../../exporter/parquet/schema.ts'
import { partition } from '../../../exporter/store/keys.ts'
import { createPendingRows } from '../../../exporter/tensors/pending-rows.ts'
import { row as tensorRow } from './rows.ts'
import { temporaryFolder } from './temporary-folder.ts'

const ring = new Uint8Array(1 << 16).map((_, index) => (index * 31) >> 3)

/** The same pseudo-random numbers in [0, below) at every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

/** Rows that differ in everything in which rows may, many of them out of order. */
function mixedRows(count: number, seed: number): TensorRow[] {
  const next = numbers(seed)
  const base = tensorRow()
  const requests = [0, 1, 2].map((index) => ({
    ...base.request,
    requestId: `request ${index}`,
    traceId: String(index % 2).repeat(32),
  }))
  const models = [base.model, { ...base.model, name: 'other model' }] as const
  return Array.from({ length: count }, (_, index) => {
    const bytes = 4 * (1 + next(40))
    const start = next(ring.byteLength - bytes)
    const data = ring.subarray(start, start + bytes)
    const encoded = next(5) === 0
    return {
      ...base,
      request: requests[next(3)] ?? base.request,
      model: models[next(10) === 0 ? 1 : 0],
      hook: ['resid_pre', 'mlp_out'][next(2)] ?? '',
      layer: next(3) - 1,
      ranks: { tp: next(2), pp: 0, dp: 0, ep: 0 },
      phase: next(2) === 0 ? ('prefill' as const) : ('decode' as const),
      step: next(4) === 0 ? next(index + 1) : index,
      tokenStart: index,
      tokenEnd: index + 1 + next(3),
      capturedAtMicros: base.capturedAtMicros + next(3) * 1_800_000_000 - next(1000),
      dtype: next(9) === 0 ? 'float16' : 'float32',
      shape: [1, bytes / 4],
      statistics:
        next(3) === 0
          ? {}
          : { l2Mean: next(100) / 7, l2Max: Number.NaN, ...(next(2) === 0 ? { absMax: -0 } : {}) },
      nonfinite: next(3),
      crc32c: next(2 ** 32),
      data: encoded ? data.slice(0, 3) : data,
      ...(encoded ? { encoding: 'bytes-zstd-1', decodedBytes: bytes } : {}),
    }
  })
}

function writtenBy(write: (path: string) => unknown, folder: string, name: string): Buffer {
  const path = join(folder, name)
  write(path)
  return readFileSync(path)
}

/** Compares files and descriptions of each folder of the store. */
function expectSameFiles(rows: readonly TensorRow[], pending = createPendingRows()): void {
  for (const row of rows) pending.add(row)
  const shared = {
    columns: tensorColumns,
    payload: tensorPayload,
    metadata: { 'ring2.schema': '1' },
    fsync: false,
  }
  const folder = temporaryFolder()
  const groups = Map.groupBy(rows, (row) =>
    partition('tensors', row.model.name, row.capturedAtMicros),
  )
  const tables = pending.tables()
  expect([...tables.keys()].sort()).toEqual([...groups.keys()].sort())
  for (const [place, group] of groups) {
    const table = tables.get(place)
    if (table === undefined) throw new Error(`no rows of ${place}`)
    const sorted = group.toSorted(compareRows)
    const packed = writtenBy(
      (path) => writeParquetSource({ ...shared, path, source: table }),
      folder,
      'a',
    )
    const plain = writtenBy(
      (path) => writeParquetFile({ ...shared, path, rows: sorted }),
      folder,
      'b',
    )
    expect(packed.equals(plain)).toBe(true)
    const file = { key: 'key', bytes: packed.byteLength }
    const described = describeTensors(file, sorted.map(placeOf))
    expect(table.describe().finish(file)).toEqual(described)
    if (table.count < 3) continue
    const part = describeTensors(file, sorted.slice(1, -1).map(placeOf))
    expect(
      table
        .slice(1, table.count - 1)
        .describe()
        .finish(file),
    ).toEqual(part)
  }
}

test.each([1, 2, 700, 3000])(
  '%i rows of every kind become the same files as objects do',
  (count) => {
    expectSameFiles(mixedRows(count, count))
  },
)

test('memory that is used again holds nothing of the rows before', () => {
  const pending = createPendingRows()
  for (const row of mixedRows(1500, 3)) pending.add(row)
  expect(pending.rows()).toBe(1500)
  pending.clear()
  expect([pending.rows(), pending.bytes(), pending.tables().size]).toEqual([0, 0, 0])
  expectSameFiles(mixedRows(900, 4), pending)
})

test('a number that is none is refused when the file is written, and the rows stay', () => {
  const pending = createPendingRows()
  pending.add({ ...tensorRow(), step: 0.5 })
  const [table] = pending.tables().values()
  expect(() => table?.gather(0, 1)).toThrow('column step needs an integer')
  expect(pending.rows()).toBe(1)
})
