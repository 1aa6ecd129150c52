/**
 * Reads tensors back by trace id: finds the rows by the catalogue, reads their places, stitches,
 * and reads and checks only the payloads that the answer needs.
 *
 * Two steps, so that a caller who already has the answer (If-None-Match) pays for no payload:
 * `open` decides what the answer is, `read` fetches it. Errors are thrown as Ring2Error. Nothing is
 * delivered whose checksum does not fit.
 */

import { createHash } from 'node:crypto'
import { hooks } from '../../collector/hooks.gen.ts'
import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import type { Catalog, CatalogSeries } from './catalog.ts'
import type { ParquetSource } from './parquet-source.ts'
import { payloadFrom, recordColumnsOf, recordFrom, type TensorRecord } from './records.ts'
import type { TensorQuery } from './selection.ts'
import { chooseSeries, expectedRanges } from './series-choice.ts'
import { copySegment, planStitch, type StitchPlan } from './stitch.ts'

export interface OpenedTensor {
  readonly traceId: string
  readonly requestId: string
  readonly hook: string
  readonly layer: number
  readonly plan: StitchPlan
  /** Changes exactly when the answer's bytes may change. */
  readonly fingerprint: string
  /** Fetches and checks the payloads; row-major, little-endian, `plan.bytes` long. */
  read(): Promise<Uint8Array>
}

export interface TensorRowPlace extends TensorRecord {
  readonly key: string
  readonly row: number
}

export interface TensorListQuery {
  readonly traceId: string
  readonly requestId: string | null
  /** Null or left out: the rows of every producer. */
  readonly producer?: string | null
  readonly hook: string | null
  readonly layer: number | null
}

export interface TensorReader {
  open(query: TensorQuery): Promise<OpenedTensor>
  /** Every stored row that fits, with shapes and statistics and without payload. */
  list(query: TensorListQuery): Promise<TensorRowPlace[]>
}

export interface TensorReaderOptions {
  readonly catalog: Catalog
  readonly source: ParquetSource
  /** CRC-32C of the bytes, unsigned. */
  readonly crc32c: (bytes: Uint8Array) => number
  /** Defaults are those of `answerLimits`. */
  readonly tensorBytesMax?: number
  readonly sourceBytesMax?: number
}

export function createTensorReader(options: TensorReaderOptions): TensorReader {
  const { catalog, source, crc32c } = options
  const tensorBytesMax = options.tensorBytesMax ?? answerLimits.tensorBytesMax
  const sourceBytesMax = options.sourceBytesMax ?? answerLimits.sourceBytesMax

  async function open(query: TensorQuery): Promise<OpenedTensor> {
    const series = chooseSeries(catalog, query)
    const chosen = { trace_id: query.traceId, request_id: '', producer: '', ...series[0] }
    const rows = dropDuplicates(await readPlaces(source, series))
    const hook = hooks.find((one) => one.name === query.hook)
    const shape = hook?.shape ?? 'token'
    const headAxis = hook?.dims.findIndex((name) => name === 'heads' || name === 'kv_heads') ?? -1
    const plan = planStitch(rows, {
      shape,
      headAxis: headAxis < 0 ? null : headAxis,
      heads: query.heads,
      tokens: query.tokens,
      expected: expectedRanges(catalog, chosen, shape),
    })
    checkSize('the tensor', plan.bytes, tensorBytesMax)
    checkSize('the rows it comes from', payloadBytes(plan, rows), sourceBytesMax)
    return {
      traceId: query.traceId,
      requestId: chosen.request_id,
      hook: query.hook,
      layer: query.layer,
      plan,
      fingerprint: fingerprint(query, plan, rows),
      read: () => readPayloads(source, crc32c, plan, rows),
    }
  }

  async function list(query: TensorListQuery): Promise<TensorRowPlace[]> {
    const series = catalog.series({
      traceId: query.traceId,
      ...(query.requestId === null ? {} : { requestId: query.requestId }),
      ...(query.producer === null || query.producer === undefined
        ? {}
        : { producer: query.producer }),
      ...(query.hook === null ? {} : { hook: query.hook }),
      ...(query.layer === null ? {} : { layer: query.layer }),
    })
    const count = series.reduce((sum, one) => sum + one.row_end - one.row_start, 0)
    if (count > answerLimits.listRowsMax) {
      throw new Ring2Error('RING2_E_TOO_LARGE', {
        expected: `at most ${answerLimits.listRowsMax} rows`,
        actual: `${count}`,
        action: 'Ask for one hook, one layer or one request.',
      })
    }
    return dropDuplicates(await readPlaces(source, series))
  }

  return { open, list }
}

/** Reads the places of all rows of the series; neighbouring ranges of one file in one read. */
async function readPlaces(
  source: ParquetSource,
  series: readonly CatalogSeries[],
): Promise<TensorRowPlace[]> {
  const places: TensorRowPlace[] = []
  const order = [...series].sort(
    (left, right) => compareText(left.key, right.key) || left.row_start - right.row_start,
  )
  for (let index = 0; index < order.length; ) {
    const run = [order[index] as CatalogSeries]
    for (let next = order[index + 1]; next !== undefined; next = order[index + run.length]) {
      const last = run.at(-1)
      if (last?.key !== next.key || last.row_end !== next.row_start) break
      run.push(next)
    }
    places.push(...(await readRun(source, run)))
    index += run.length
  }
  return places
}

async function readRun(
  source: ParquetSource,
  run: readonly CatalogSeries[],
): Promise<TensorRowPlace[]> {
  const key = run[0]?.key ?? ''
  const start = run[0]?.row_start ?? 0
  const columns = recordColumnsOf(await source.columns(key))
  const rows = await source.read(key, columns, start, run.at(-1)?.row_end ?? 0)
  return run.flatMap((series) =>
    rows.slice(series.row_start - start, series.row_end - start).map((row, index) => {
      const place = { ...recordFrom(row), key, row: series.row_start + index }
      checkPlace(series, place)
      return place
    }),
  )
}

/** The catalogue and the file must agree; a stale catalogue must not deliver a wrong tensor. */
function checkPlace(series: CatalogSeries, place: TensorRowPlace): void {
  const same =
    series.trace_id === place.trace_id &&
    series.request_id === place.request_id &&
    series.producer === place.producer &&
    series.hook === place.hook &&
    series.layer === place.layer
  if (same) return
  throw new Ring2Error('RING2_E_STORE', {
    expected: `row ${place.row} of ${place.key} to be ${series.hook}, layer ${series.layer}`,
    actual: `${place.hook}, layer ${place.layer} of trace ${place.trace_id}`,
    action: 'The catalogue is stale: run `ring2-exporter catalog rebuild`.',
  })
}

/**
 * Delivered again, stored once: of rows with one key only the first counts. Steps are counted by
 * each producer for itself, so the producer is part of the key.
 */
function dropDuplicates(rows: readonly TensorRowPlace[]): TensorRowPlace[] {
  const seen = new Set<string>()
  return rows.filter((row) => {
    const ranks = [row.tp_rank, row.pp_rank, row.dp_rank, row.ep_rank]
    const series = [row.producer, row.request_id, row.hook, row.layer, ...ranks]
    const key = JSON.stringify([...series, row.token_start, row.step])
    if (seen.has(key)) return false
    seen.add(key)
    return true
  })
}

function usedRows(plan: StitchPlan): Set<number> {
  return new Set(plan.segments.map((segment) => segment.row))
}

function payloadBytes(plan: StitchPlan, rows: readonly TensorRowPlace[]): number {
  let bytes = 0
  for (const row of usedRows(plan)) bytes += rows[row]?.data_bytes ?? 0
  return bytes
}

function checkSize(what: string, bytes: number, bytesMax: number): void {
  if (bytes <= bytesMax) return
  throw new Ring2Error('RING2_E_TOO_LARGE', {
    expected: `at most ${bytesMax} bytes for ${what}`,
    actual: `${bytes} bytes`,
    action: 'Ask for a token range (tokens=a:b) or fewer heads (heads=0,1).',
  })
}

function fingerprint(
  query: TensorQuery,
  plan: StitchPlan,
  rows: readonly TensorRowPlace[],
): string {
  const parts = plan.segments.map((segment) => {
    const row = rows[segment.row]
    return [row?.step, row?.token_start, row?.data_crc32c, row?.data_bytes, segment]
  })
  const facts = [plan.shape, plan.dtype.name, plan.heads, plan.gaps, plan.completeness]
  const text = JSON.stringify([query.traceId, query.hook, query.layer, facts, parts])
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

async function readPayloads(
  source: ParquetSource,
  crc32c: (bytes: Uint8Array) => number,
  plan: StitchPlan,
  rows: readonly TensorRowPlace[],
): Promise<Uint8Array> {
  const out = new Uint8Array(plan.bytes)
  const segments = Map.groupBy(plan.segments, (segment) => segment.row)
  for (const run of payloadRuns(plan, rows)) {
    const [first] = run
    if (first === undefined) continue
    const start = first.place.row
    const read = await source.read(first.place.key, ['data'], start, start + run.length)
    for (const [index, { place, row }] of run.entries()) {
      const data = payloadFrom(read[index] ?? {})
      checkPayload(place, data, crc32c)
      for (const segment of segments.get(row) ?? []) {
        copySegment(plan, segment, place.shape, data, out)
      }
    }
  }
  return out
}

interface PayloadRow {
  readonly place: TensorRowPlace
  /** Index into the plan's rows. */
  readonly row: number
}

/** Neighbouring rows of one file, up to a bound of bytes, so that memory stays bounded. */
function* payloadRuns(
  plan: StitchPlan,
  rows: readonly TensorRowPlace[],
): Generator<readonly PayloadRow[]> {
  const used: PayloadRow[] = []
  for (const row of usedRows(plan)) {
    const place = rows[row]
    if (place !== undefined) used.push({ place, row })
  }
  used.sort(
    (left, right) =>
      compareText(left.place.key, right.place.key) || left.place.row - right.place.row,
  )
  let run: PayloadRow[] = []
  let bytes = 0
  for (const next of used) {
    const last = run.at(-1)?.place
    const joins = last?.key === next.place.key && last.row + 1 === next.place.row
    const fits = bytes + next.place.data_bytes <= answerLimits.sourceChunkBytes
    if (run.length > 0 && !(joins && fits)) {
      yield run
      run = []
      bytes = 0
    }
    run.push(next)
    bytes += next.place.data_bytes
  }
  if (run.length > 0) yield run
}

function checkPayload(
  place: TensorRowPlace,
  data: Uint8Array,
  crc32c: (bytes: Uint8Array) => number,
): void {
  const crc = data.byteLength === place.data_bytes ? crc32c(data) : null
  if (crc === place.data_crc32c) return
  const actual = crc === null ? `${data.byteLength} bytes` : `CRC-32C ${crc}`
  throw new Ring2Error('RING2_E_CHECKSUM', {
    expected: `${place.data_bytes} bytes with CRC-32C ${place.data_crc32c}`,
    actual: `${actual} in row ${place.row} of ${place.key}`,
  })
}

function compareText(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}
