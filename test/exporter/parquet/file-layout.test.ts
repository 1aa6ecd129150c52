/**
 * How a file is laid out, what readers skip by its indexes, and that parquetjs-lite reads the variant
 * that is meant for it.
 */

import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import {
  type AsyncBuffer,
  asyncBufferFromFile,
  type ColumnChunk,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
} from 'hyparquet'
import { expect, onTestFinished, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { compareRows } from '../../../exporter/catalog/description.ts'
import { writeParquetFile } from '../../../exporter/parquet/file-writer.ts'
import { tensorColumns, tensorPayload } from '../../../exporter/parquet/schema.ts'
import { runPython } from '../tensors/python.ts'
import { floats, request, row } from '../tensors/rows.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { readLite } from './parquetjs-lite.ts'

const requests = 40
const stepsOfRequest = 500

/** Ids with even numbers only, so that those between them are absent and not out of range. */
function requestId(index: number): string {
  return `request-${String(index * 2).padStart(4, '0')}`
}

function traceId(index: number): string {
  return String(index * 2).padStart(32, '0')
}

/** 20,000 rows: two row groups. */
function manyRows(): TensorRow[] {
  const rows = Array.from({ length: requests }, (_, index) => {
    const info = request({ requestId: requestId(index), traceId: traceId(index) })
    return Array.from({ length: stepsOfRequest }, (_, step) =>
      row({
        request: info,
        hook: step % 2 === 0 ? 'resid_pre' : 'pattern',
        layer: step % 5,
        step,
        data: new Uint8Array(512).fill(step % 251),
      }),
    )
  })
  return rows.flat().sort(compareRows)
}

function write(rows: readonly TensorRow[], numberDictionaries = true) {
  const path = join(temporaryFolder(), 'rows.parquet')
  const metadata = { 'ring2.schema': '1' }
  const columns = tensorColumns
  const options = { path, columns, payload: tensorPayload, rows, metadata, fsync: false }
  return { path, ...writeParquetFile({ ...options, numberDictionaries }) }
}

/** The file, and how many bytes were asked of it. */
async function counted(path: string): Promise<{ file: AsyncBuffer; bytes: () => number }> {
  const inner = await asyncBufferFromFile(path)
  let read = 0
  const file: AsyncBuffer = {
    byteLength: inner.byteLength,
    slice(start, end) {
      read += (end ?? inner.byteLength) - start
      return inner.slice(start, end)
    },
  }
  return { file, bytes: () => read }
}

function chunksOf(metadata: FileMetaData): ColumnChunk[] {
  return metadata.row_groups.flatMap(({ columns }) => columns)
}

function startOf({ meta_data }: ColumnChunk): number {
  return Number(meta_data?.dictionary_page_offset ?? meta_data?.data_page_offset)
}

test('payloads come first, and everything else lies in one tail that the writer tells', async () => {
  const { path, bytes, tail_start } = write(manyRows())
  const file = await asyncBufferFromFile(path)
  expect(file.byteLength).toBe(bytes)
  const metadata = await parquetMetadataAsync(file)
  expect(metadata.row_groups).toHaveLength(2)
  for (const chunk of chunksOf(metadata)) {
    const start = startOf(chunk)
    const end = start + Number(chunk.meta_data?.total_compressed_size)
    if (chunk.meta_data?.path_in_schema[0] === 'data') expect(end).toBeLessThanOrEqual(tail_start)
    else expect(start).toBeGreaterThanOrEqual(tail_start)
    expect(Number(chunk.offset_index_offset)).toBeGreaterThan(tail_start)
  }
  // The tail alone is enough for every column but the payload.
  const tailOnly: AsyncBuffer = {
    byteLength: bytes,
    slice(start, end) {
      if (start < tail_start) throw new Error(`byte ${start} is no part of the tail`)
      return file.slice(start, end)
    },
  }
  const columns = tensorColumns.map(({ name }) => name)
  const read = await parquetReadObjects({ file: tailOnly, metadata, columns, rowStart: 19_000 })
  expect(read).toHaveLength(1000)
})

test('a row group is found where its first column lies, as parquet-java divides files', async () => {
  const { path, bytes } = write(manyRows())
  const metadata = await parquetMetadataAsync(await asyncBufferFromFile(path))
  // It gives a row group to the worker whose share holds the middle of it, counted from the start of
  // the first column; a middle beyond the end would belong to nobody.
  const middles = metadata.row_groups.map(({ columns: [first], total_compressed_size }) => {
    if (first === undefined) throw new Error('a row group without columns')
    return startOf(first) + Number(total_compressed_size) / 2
  })
  expect(middles).toEqual([...middles].sort((left, right) => left - right))
  expect(middles.at(-1)).toBeLessThan(bytes)
})

test('hyparquet reads only the pages of one request, and none for an absent one', async () => {
  const { path, bytes: size } = write(manyRows())
  const metadata = await parquetMetadataAsync(await asyncBufferFromFile(path))
  const read = async (id: string, useBloomFilters: boolean) => {
    const { file, bytes } = await counted(path)
    const rows = await parquetReadObjects({
      file,
      metadata,
      columns: ['request_id', 'step', 'data'],
      filter: { request_id: { $eq: id } },
      useBloomFilters,
      usePageIndex: true,
      useOffsetIndex: true,
      utf8: false,
    })
    return { rows, bytes: bytes() }
  }
  const one = await read(requestId(7), true)
  expect(one.rows).toHaveLength(stepsOfRequest)
  expect(one.rows.every((found) => found.request_id === requestId(7))).toBe(true)
  // The request has 512-byte payloads in 500 rows; a page of the id column spans 1024 rows.
  expect(one.bytes).toBeLessThan(size / 5)
  const absent = `${requestId(7).slice(0, -1)}5`
  const without = await read(absent, false)
  const filtered = await read(absent, true)
  expect([without.rows, filtered.rows]).toEqual([[], []])
  expect(filtered.bytes).toBeLessThan(1024)
  expect(without.bytes).toBeGreaterThan(filtered.bytes)
})

test('every id of a row group with many passes its Bloom filter', async () => {
  const many = 800
  const { path } = write(
    Array.from({ length: many }, (_, index) =>
      row({ request: request({ requestId: requestId(index) }) }),
    ),
  )
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  expect(metadata.row_groups).toHaveLength(1)
  const lost: string[] = []
  for (let index = 0; index < many; index += 1) {
    const filter = { request_id: { $eq: requestId(index) } }
    const columns = ['request_id']
    const rows = await parquetReadObjects({
      file,
      metadata,
      columns,
      filter,
      useBloomFilters: true,
    })
    if (rows.length !== 1) lost.push(requestId(index))
  }
  expect(lost).toEqual([])
})

test('DuckDB excludes row groups by the Bloom filters, and only where the id is absent', async () => {
  const { path } = write(manyRows())
  const probe = (column: string, value: string) =>
    query(
      `SELECT row_group_id::INTEGER AS id, bloom_filter_excludes AS excluded
       FROM parquet_bloom_probe('${path}', '${column}', '${value}') ORDER BY row_group_id`,
    )
  const both = (first: boolean, second: boolean) => [
    { id: 0, excluded: first },
    { id: 1, excluded: second },
  ]
  expect(await probe('request_id', requestId(2))).toEqual(both(false, true))
  expect(await probe('trace_id', traceId(39))).toEqual(both(true, false))
  expect(await probe('trace_id', traceId(39).replace(/8$/, '7'))).toEqual(both(true, true))
  const [answer] = await query(
    `SELECT count(*) AS n, sum(octet_length(data)) AS bytes FROM read_parquet('${path}')
     WHERE request_id = '${requestId(21)}' AND hook = 'pattern'`,
  )
  expect(answer).toEqual({ n: '250', bytes: `${250 * 512}` })
})

test('PyArrow finds the indexes, and keeps only the row groups that can hold a trace', () => {
  const { path } = write(manyRows())
  const script = join(import.meta.dirname, 'pruned.py')
  const facts = JSON.parse(runPython(script, [path, traceId(39), 'resid_pre']))
  expect(facts.row_groups).toBe(2)
  expect(facts.kept).toEqual([1])
  expect(facts.rows).toBe(250)
  expect(facts.without_offset_index).toEqual([])
  expect(facts.with_column_index).toEqual(
    expect.arrayContaining(['trace_id', 'request_id', 'hook', 'layer', 'step', 'token_start']),
  )
})

test('a column index bounds every page, also where texts sort unlike JavaScript sorts them', async () => {
  // U+FFFD comes after U+1F600 in UTF-16 and before it in UTF-8; only the latter counts.
  const ids = ['a', '\u{fffd}', '\u{1f600}', 'z'.repeat(200)]
  const rows = ids.flatMap((id) =>
    Array.from({ length: 2000 }, (_, step) =>
      row({ request: request({ requestId: id, spanId: step < 1500 ? '' : id }), step }),
    ),
  )
  const { path } = write(rows)
  for (const id of ids) {
    const [found] = await query(
      `SELECT count(*) AS n FROM read_parquet('${path}') WHERE request_id = '${id}'`,
    )
    expect(found).toEqual({ n: '2000' })
    const file = await asyncBufferFromFile(path)
    const filter = { span_id: { $eq: id } }
    const columns = ['span_id', 'step']
    const read = await parquetReadObjects({ file, columns, filter, usePageIndex: true })
    expect(read).toHaveLength(500)
  }
})

test('more texts than a dictionary takes, nulls among them, and negative numbers come back', async () => {
  const rows = Array.from({ length: 3000 }, (_, index) =>
    row({
      request: request({
        requestId: `request-${index % 1300}`,
        spanId: index % 3 === 0 ? '' : `${index}`.padStart(16, '0'),
      }),
      layer: 3 - (index % 7),
      step: index % 2 === 0 ? -1 : Number.MAX_SAFE_INTEGER - index,
      shape: index % 2 === 0 ? [] : [index, 1],
      statistics: index % 5 === 0 ? { mean: Number.NaN } : { mean: -0 },
    }),
  )
  const { path } = write(rows)
  const columns = ['request_id', 'span_id', 'layer', 'step', 'shape', 'mean']
  const read = await parquetReadObjects({ file: await asyncBufferFromFile(path), columns })
  const expected = rows.map((one) => ({
    request_id: one.request.requestId,
    span_id: one.request.spanId === '' ? null : one.request.spanId,
    layer: one.layer,
    step: BigInt(one.step),
    shape: one.shape.map(BigInt),
    mean: one.statistics.mean,
  }))
  expect(read).toEqual(expected)
  const [sums] = await query(
    `SELECT count(span_id) AS spans, count(DISTINCT request_id) AS ids, sum(layer) AS layers,
       count(*) FILTER (step = -1) AS steps, count(*) FILTER (len(shape) = 2) AS shapes,
       count(*) FILTER (isnan(mean)) AS nans
     FROM read_parquet('${path}')`,
  )
  const layers = rows.reduce((sum, one) => sum + one.layer, 0)
  expect(sums).toEqual({
    spans: '2000',
    ids: '1300',
    layers: `${layers}`,
    steps: '1500',
    shapes: '1500',
    nans: '600',
  })
})

test('a value that its column cannot hold is refused, and no file is left', () => {
  expect(() => write([row({ step: 0.5 })])).toThrow('column step needs an integer; got number 0.5')
  const path = join(temporaryFolder(), 'rows.parquet')
  const columns = [{ ...tensorColumns[0], value: () => null } as (typeof tensorColumns)[number]]
  const options = { path, columns, payload: tensorPayload, rows: [row()], metadata: {} }
  expect(() => writeParquetFile({ ...options, fsync: false })).toThrow('column trace_id needs text')
  expect(readdirSync(dirname(path))).toEqual([])
})

test('parquetjs-lite reads the variant without dictionaries of numbers', async () => {
  const rows = Array.from({ length: 700 }, (_, index) =>
    row({
      request: request({ spanId: index < 300 ? '' : '1111111111111111' }),
      hook: index < 200 ? 'final_logits' : 'resid_pre',
      layer: Math.floor(index / 50),
      step: index % 50,
      shape: index % 3 === 0 ? [] : [1, index],
      statistics: index % 2 === 0 ? { l2Mean: index / 3, mean: -index } : {},
      data: floats(index, -index),
    }),
  )
  const read = await readLite(write(rows, false).path)
  expect(read).toHaveLength(rows.length)
  const found = read.map((one) => ({
    span: one.span_id,
    hook: one.hook,
    layer: one.layer,
    step: one.step,
    shape: one.shape,
    norm: one.l2_mean,
    mean: one.mean,
    crc: one.data_crc32c,
    model: one.model,
    data: Buffer.from(one.data as Uint8Array).toString('hex'),
  }))
  expect(found).toEqual(
    rows.map((one) => ({
      // It leaves out what is null or empty.
      span: one.request.spanId === '' ? undefined : one.request.spanId,
      hook: one.hook,
      layer: one.layer,
      step: BigInt(one.step),
      shape: one.shape.length === 0 ? {} : { list: one.shape.map((n) => ({ element: BigInt(n) })) },
      norm: one.statistics.l2Mean,
      mean: one.statistics.mean,
      crc: BigInt(one.crc32c),
      model: one.model.name,
      data: Buffer.from(one.data).toString('hex'),
    })),
  )
})

async function query(sql: string): Promise<unknown[]> {
  const instance = await DuckDBInstance.create()
  const connection = await instance.connect()
  onTestFinished(() => {
    connection.closeSync()
    instance.closeSync()
  })
  return (await connection.runAndReadAll(sql)).getRowObjectsJson()
}
