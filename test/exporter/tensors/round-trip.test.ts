/**
 * One file with every kind of value, read back by three readers that share no code.
 */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { expect, onTestFinished, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { recordColumns } from '../../../exporter/tensors/records.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { runPython } from './python.ts'
import { noonMicros, producer, request, row, summary } from './rows.ts'
import { temporaryFolder } from './temporary-folder.ts'

const unicode = 'anfrage-ß-漢字-😀-"quoted"-\\-%'

/** Rows in file order: by trace, request, hook, layer, ranks, step. */
function rows(): TensorRow[] {
  const odd = request({ requestId: unicode, spanId: '' })
  const big = new Uint8Array(3 * 1024 * 1024 + 1).map((_, index) => index % 251)
  return [
    row({ request: odd, hook: 'final_logits', layer: -1, step: Number.MAX_SAFE_INTEGER }),
    row({
      request: odd,
      hook: 'pattern',
      dtype: 'bfloat16',
      shape: [1, 1, 3],
      data: new Uint8Array([0x80, 0x3f, 0x00, 0xc0, 0xff, 0x7f]),
      statistics: { entropyMean: 0.5, sinkMass: Number.NaN },
    }),
    row({
      request: odd,
      shape: [],
      data: new Uint8Array(0),
      model: { ...row().model, revision: '' },
    }),
    row({
      request: odd,
      layer: 65_535,
      shape: [big.byteLength],
      dtype: 'uint8',
      data: big,
      crc32c: 4_294_967_295,
      ranks: { tp: 65_535, pp: 1, dp: 2, ep: 3 },
      statistics: { l2Mean: 1e-300, l2Max: 1e300, absMax: 0.1, mean: -0, variance: 2.25 },
      nonfinite: Number.MAX_SAFE_INTEGER,
      capturedAtMicros: noonMicros + 1,
      kvOffset: 2 ** 31 - 1,
    }),
  ]
}

function writeOne(dataset: 'tensors' | 'requests'): string {
  const root = temporaryFolder()
  const sink = createTensorSink({ location: locateStore(root, null), fsync: true })
  if (dataset === 'tensors') for (const one of rows()) sink.append(one)
  else sink.finish(summary({ request: request({ requestId: unicode, parentSpanId: null }) }))
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  expect(sink.publish(prepared.value)).toMatchObject({ status: 'success' })
  sink.close()
  const files = readdirSync(join(root, dataset), { recursive: true }).map(String)
  const [file] = files.filter((name) => name.endsWith('.parquet'))
  return join(root, dataset, file ?? '')
}

function expectedRow(one: TensorRow) {
  const { statistics } = one
  const variance = statistics.variance
  return {
    trace_id: one.request.traceId,
    span_id: one.request.spanId === '' ? null : one.request.spanId,
    request_id: one.request.requestId,
    model: one.model.name,
    model_revision: one.model.revision,
    engine: one.model.engine,
    hook: one.hook,
    layer: one.layer,
    step: BigInt(one.step),
    phase: one.phase,
    token_start: one.tokenStart,
    token_end: one.tokenEnd,
    kv_offset: one.kvOffset,
    tp_rank: one.ranks.tp,
    pp_rank: one.ranks.pp,
    dp_rank: one.ranks.dp,
    ep_rank: one.ranks.ep,
    captured_at: BigInt(one.capturedAtMicros),
    dtype: one.dtype,
    shape: one.shape.map(BigInt),
    encoding: 'raw',
    data_bytes: BigInt(one.data.byteLength),
    data_crc32c: BigInt(one.crc32c),
    l2_mean: statistics.l2Mean ?? null,
    l2_max: statistics.l2Max ?? null,
    abs_max: statistics.absMax ?? null,
    mean: statistics.mean ?? null,
    std: variance === undefined ? null : Math.sqrt(variance),
    entropy_mean: statistics.entropyMean ?? null,
    sink_mass: statistics.sinkMass ?? null,
    nonfinite: BigInt(one.nonfinite),
    producer: 'chat-00c0ffee00c0ffee',
    host: 'host-1',
    data: Buffer.from(one.data).toString('base64'),
  }
}

/** JSON of another reader has integers where we have bigints; -0 must stay what it is. */
function withoutBigints(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (typeof value === 'number' && Number.isNaN(value)) return 'NaN'
  if (Array.isArray(value)) return value.map(withoutBigints)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, withoutBigints(one)]))
}

test('hyparquet reads back every value exactly', async () => {
  const file = await asyncBufferFromFile(writeOne('tensors'))
  const metadata = await parquetMetadataAsync(file)
  const parsers = { timestampFromMicroseconds: (micros: bigint) => micros }
  const read = await parquetReadObjects({ file, metadata, utf8: false, parsers })
  const plain = read.map((one) => ({ ...one, data: Buffer.from(one.data).toString('base64') }))
  expect(plain).toEqual(rows().map(expectedRow))
  expect(
    Object.keys(read[0] ?? {})
      .filter((name) => name !== 'data')
      .sort(),
  ).toEqual([...recordColumns].sort())
})

test('PyArrow reads back every value exactly, with the types of the contract', () => {
  const script = join(import.meta.dirname, 'read_parquet.py')
  const read = JSON.parse(runPython(script, [writeOne('tensors')]))
  expect(read.rows).toEqual(withoutBigints(rows().map(expectedRow)))
  expect(read.metadata).toEqual({
    'ring2.schema': '1',
    'ring2.producer': 'chat',
    'ring2.boot': '00c0ffee00c0ffee',
  })
  expect(read.types).toMatchObject({
    trace_id: 'string',
    layer: 'int32',
    step: 'int64',
    token_start: 'int32',
    captured_at: 'timestamp[us, tz=UTC]',
    shape: 'list<element: int64 not null>',
    data_bytes: 'int64',
    l2_mean: 'double',
    nonfinite: 'int64',
    data: 'binary',
  })
  expect(read.data_statistics).toBe(false)
  expect(read.data_codec).toBe('UNCOMPRESSED')
})

test('DuckDB reads back every value exactly', async () => {
  const read = await query(
    `SELECT * REPLACE (epoch_us(captured_at) AS captured_at, base64(data) AS data,
       CAST(step AS VARCHAR) AS step, CAST(nonfinite AS VARCHAR) AS nonfinite)
     FROM read_parquet('${writeOne('tensors')}', hive_partitioning = false)`,
  )
  const texts = ['captured_at', 'step', 'nonfinite', 'data_bytes', 'data_crc32c']
  const expected = rows()
    .map(expectedRow)
    .map((one) => {
      const changed: Record<string, unknown> = { ...one, shape: one.shape.map(String) }
      for (const name of texts) changed[name] = String(changed[name])
      return changed
    })
  expect(read).toEqual(withoutBigints(expected))
})

test('DuckDB and hyparquet read back an ended request', async () => {
  const path = writeOne('requests')
  const [read] = await query(
    `SELECT request_id, parent_span_id, verdict, completeness, expected, tokens,
       epoch_us(started_at) AS started_at, summary->>'$.promptTokens' AS prompt
     FROM read_parquet('${path}', hive_partitioning = false)`,
  )
  expect(read).toEqual({
    request_id: unicode,
    parent_span_id: null,
    verdict: 'ok',
    completeness: 'complete',
    expected: '10',
    tokens: '3',
    started_at: String(noonMicros),
    prompt: '2',
  })
  const file = await asyncBufferFromFile(path)
  const [row] = await parquetReadObjects({ file })
  const original = summary({ request: request({ requestId: unicode, parentSpanId: null }) })
  expect(JSON.parse(row?.summary)).toEqual(original)
})

async function query(sql: string): Promise<unknown[]> {
  const instance = await DuckDBInstance.create()
  const connection = await instance.connect()
  onTestFinished(() => {
    connection.closeSync()
    instance.closeSync()
  })
  const result = await connection.runAndReadAll(sql)
  const read = result.getRowObjectsJson()
  return read
}
