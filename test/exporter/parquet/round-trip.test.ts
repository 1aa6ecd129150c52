/**
 * One file with every kind of value, read back by three readers that share no code.
 */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { expect, onTestFinished, test } from 'vitest'
import type { RequestSummary, TensorRow } from '../../../collector/records.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { recordColumns } from '../../../exporter/tensors/records.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { runPython } from '../tensors/python.ts'
import { floats, noonMicros, producer, request, row, summary } from '../tensors/rows.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

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
      statistics: {
        entropyMean: 0.5,
        top1ProbabilityMean: 0.25,
        marginMean: 1.5,
        surprisalMean: 2.75,
        sinkMass: Number.NaN,
      },
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
  if (dataset === 'tensors') return writeRows(rows())
  return writeFile([], [summary({ request: request({ requestId: unicode, parentSpanId: null }) })])
}

function writeRows(tensors: readonly TensorRow[]): string {
  return writeFile(tensors, [])
}

/** Path of the one file that the rows or the summaries become. */
function writeFile(tensors: readonly TensorRow[], summaries: readonly RequestSummary[]): string {
  const dataset = summaries.length === 0 ? 'tensors' : 'requests'
  const root = temporaryFolder()
  const sink = createTensorSink({ location: locateStore(root, null), fsync: true })
  for (const one of tensors) sink.append(one)
  for (const one of summaries) sink.finish(one)
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
    top1_probability_mean: statistics.top1ProbabilityMean ?? null,
    margin_mean: statistics.marginMean ?? null,
    surprisal_mean: statistics.surprisalMean ?? null,
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

test('columns of one value, or of none, come back for every row', async () => {
  const count = 20_000
  const many = Array.from({ length: count }, (_, step) =>
    row({ step, request: request({ spanId: '' }), data: floats(step) }),
  )
  const path = writeRows(many)
  const [read] = await query(
    `SELECT count(*) AS n, count(span_id) AS spans, count(l2_mean) AS norms,
       count(DISTINCT model) AS models, sum(layer) AS layers, sum(tp_rank) AS ranks,
       min(host) AS host, sum(step) AS steps, sum(data_bytes) AS bytes,
       count(*) FILTER (model = 'HuggingFaceTB/SmolLM2-135M-Instruct') AS right_model
     FROM read_parquet('${path}', hive_partitioning = false)`,
  )
  expect(read).toEqual({
    n: `${count}`,
    spans: '0',
    norms: '0',
    models: '1',
    layers: '0',
    ranks: '0',
    host: 'host-1',
    steps: `${(count * (count - 1)) / 2}`,
    bytes: `${count * 4}`,
    right_model: `${count}`,
  })
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  expect(metadata.row_groups.map((group) => Number(group.num_rows))).toEqual([16_384, 3616])
  const columns = ['model', 'span_id', 'step', 'l2_mean', 'host', 'data']
  const part = { file, metadata, columns, rowStart: 16_380, rowEnd: 16_390, utf8: false }
  const rows = await parquetReadObjects({ ...part, useOffsetIndex: true })
  expect(rows).toEqual(
    Array.from({ length: 10 }, (_, index) => ({
      model: 'HuggingFaceTB/SmolLM2-135M-Instruct',
      span_id: null,
      step: BigInt(16_380 + index),
      l2_mean: null,
      host: 'host-1',
      data: floats(16_380 + index),
    })),
  )
  const script = join(import.meta.dirname, 'read_parquet.py')
  const arrow = JSON.parse(runPython(script, [path]))
  expect(arrow.rows).toHaveLength(count)
  expect(arrow.rows[19_999]).toEqual(withoutBigints(expectedRow(many[19_999] ?? row())))
})

test('a whole store is read as docs/storage.md says, with the true model names', async () => {
  const root = temporaryFolder()
  const sink = createTensorSink({ location: locateStore(root, null), fsync: false })
  sink.append(row())
  sink.append(row({ model: { ...row().model, name: 'plain' } }))
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  expect(sink.publish(prepared.value)).toMatchObject({ status: 'success' })
  sink.close()
  const names = await query(
    `SELECT model FROM read_parquet('${root}/tensors/**/*.parquet')
     ORDER BY model`,
  )
  const expected = ['HuggingFaceTB/SmolLM2-135M-Instruct', 'plain']
  expect(names).toEqual(expected.map((model) => ({ model })))
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
