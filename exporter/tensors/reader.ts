/**
 * Reads tensors back by trace id: finds the rows by the catalogue, reads their places, stitches,
 * and reads and checks only the payloads that the answer needs.
 *
 * Two steps, so that a caller who already has the answer (If-None-Match) pays for no payload:
 * `open` decides what the answer is, `read` or `stream` fetches it. Errors are thrown as Ring2Error. Nothing is
 * delivered whose checksum does not fit.
 */

import { createHash } from 'node:crypto'
import { hooks } from '../../collector/hooks.gen.ts'
import type { Catalog, CatalogSeries } from '../catalog/catalog.ts'
import { producersMeant } from '../catalog/parallel.ts'
import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import type { ParquetRow, ParquetSource } from '../parquet/parquet-source.ts'
import {
  createPayloadSource,
  type PayloadPlace,
  refuseRedacted,
  type TensorRowPlace,
  untilAborted,
} from './payloads.ts'
import {
  recordColumnsOf,
  recordFrom,
  type StitchRecord,
  stitchColumns,
  stitchRecordFrom,
  type TensorRecord,
} from './records.ts'
import type { TensorQuery } from './selection.ts'
import { type ChosenSeries, chooseSeries, expectedRanges } from './series-choice.ts'
import { planShards } from './shards.ts'
import { planStitch, type StitchPlan } from './stitch.ts'
import { readElements, streamElements, streamMemoryBytes } from './tensor-stream.ts'

export interface OpenedTensor {
  readonly traceId: string
  readonly requestId: string
  readonly hook: string
  readonly layer: number
  readonly plan: StitchPlan
  /** Changes exactly when the answer's bytes may change. */
  readonly fingerprint: string
  /** Bytes of memory that `stream` holds at most. */
  readonly memoryBytes: number
  /** Fetches and checks the payloads; row-major, little-endian, `plan.bytes` long. */
  read(signal?: AbortSignal | null): Promise<Uint8Array>
  /**
   * Bytes [start, end) of the same, fetched and checked as they are taken. Whoever stops taking
   * (`return` of the iterator, as `break` does) stops the reads; the signal stops them even before
   * the first part.
   */
  stream(
    start: number,
    end: number,
    signal?: AbortSignal | null,
  ): AsyncGenerator<Uint8Array, void, undefined>
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
  /**
   * The same tensor of these layers, in their order. Rows of several layers lie side by side in a
   * file, so that they are found with far fewer reads than by opening each layer.
   */
  openLayers(
    query: Omit<TensorQuery, 'layer'>,
    layers: readonly number[],
  ): AsyncGenerator<OpenedTensor, void, undefined>
  /** Every stored row that fits, with shapes and statistics and without payload. */
  list(query: TensorListQuery): Promise<TensorRowPlace[]>
}

export interface TensorReaderOptions {
  readonly catalog: Catalog
  readonly source: ParquetSource
  /** Defaults are those of `answerLimits`. */
  readonly tensorBytesMax?: number
  readonly sourceBytesMax?: number
}

export function createTensorReader(options: TensorReaderOptions): TensorReader {
  const { catalog, source } = options
  const payloads = createPayloadSource(source)
  const tensorBytesMax = options.tensorBytesMax ?? answerLimits.tensorBytesMax
  const sourceBytesMax = options.sourceBytesMax ?? answerLimits.sourceBytesMax

  async function open(query: TensorQuery): Promise<OpenedTensor> {
    const chosen = chooseSeries(catalog, query)
    const { series } = chosen
    return stitched(query, chosen, await readPlaces(source, series, placesToStitch))
  }

  async function* openLayers(query: Omit<TensorQuery, 'layer'>, layers: readonly number[]) {
    const asked = layers.map((layer) => {
      const one = { ...query, layer }
      return { query: one, ...chooseSeries(catalog, one) }
    })
    for (const group of groupsOf(asked)) {
      const all = group.flatMap((one) => one.series)
      const places = Map.groupBy(
        await readPlaces(source, all, placesToStitch),
        ({ layer }) => layer,
      )
      for (const one of group) {
        yield stitched(one.query, one, places.get(one.query.layer) ?? [])
      }
    }
  }

  function stitched(
    query: TensorQuery,
    { series, shards }: ChosenSeries,
    places: readonly PayloadPlace[],
  ): OpenedTensor {
    const chosen = { trace_id: query.traceId, request_id: '', producer: '', ...series[0] }
    const rows = dropDuplicates(places)
    refuseRedacted(rows)
    const hook = hooks.find((one) => one.name === query.hook)
    const shape = hook?.shape ?? 'token'
    const headAxis = hook?.dims.findIndex((name) => name === 'heads' || name === 'kv_heads') ?? -1
    const request = {
      shape,
      headAxis: headAxis < 0 ? null : headAxis,
      heads: query.heads,
      tokens: query.tokens,
      expected: expectedRanges(catalog, chosen, shape),
    }
    const plan = shards === null ? planStitch(rows, request) : planShards(rows, shards, request)
    checkSize('the tensor', plan.bytes, tensorBytesMax)
    checkSize('the rows it comes from', payloadBytes(plan, rows), sourceBytesMax)
    const opened = { plan, rows }
    return {
      traceId: query.traceId,
      requestId: chosen.request_id,
      hook: query.hook,
      layer: query.layer,
      plan,
      fingerprint: fingerprint(query, plan, rows),
      memoryBytes: streamMemoryBytes(opened),
      read: (signal = null) => readElements(untilAborted(payloads, signal), opened),
      stream: (start, end, signal = null) =>
        streamElements(untilAborted(payloads, signal), opened, start, end),
    }
  }

  async function list(query: TensorListQuery): Promise<TensorRowPlace[]> {
    const producer = query.producer ?? null
    const meant =
      producer === null ? null : producersMeant(catalog.requests(query.traceId), producer)
    const all = catalog.series({
      traceId: query.traceId,
      ...(query.requestId === null ? {} : { requestId: query.requestId }),
      ...(query.hook === null ? {} : { hook: query.hook }),
      ...(query.layer === null ? {} : { layer: query.layer }),
    })
    const series = all.filter((one) => meant?.has(one.producer) ?? true)
    const count = rowsOf(series)
    if (count > answerLimits.listRowsMax) {
      throw new Ring2Error('RING2_E_TOO_LARGE', {
        expected: `at most ${answerLimits.listRowsMax} rows`,
        actual: `${count}`,
        action: 'Ask for one hook, one layer or one request.',
      })
    }
    return dropDuplicates(await readPlaces(source, series, placesWhole))
  }

  return { open, openLayers, list }
}

/** How rows are read: with which columns, and as what. */
interface Reading<T> {
  readonly columns: (present: ReadonlySet<string>) => readonly string[]
  readonly from: (row: ParquetRow) => T
}

const placesToStitch: Reading<StitchRecord> = {
  columns: () => stitchColumns,
  from: stitchRecordFrom,
}
const placesWhole: Reading<TensorRecord> = { columns: recordColumnsOf, from: recordFrom }

type Placed<T> = T & { readonly key: string; readonly row: number }

/** Splits layers so that a bounded number of rows is read at once. */
function groupsOf<T extends { readonly series: readonly CatalogSeries[] }>(
  layers: readonly T[],
): T[][] {
  const groups: T[][] = []
  let rows = Number.POSITIVE_INFINITY
  for (const layer of layers) {
    const more = rowsOf(layer.series)
    if (rows + more > answerLimits.listRowsMax) {
      groups.push([])
      rows = 0
    }
    groups.at(-1)?.push(layer)
    rows += more
  }
  return groups
}

function rowsOf(series: readonly CatalogSeries[]): number {
  return series.reduce((sum, one) => sum + one.row_end - one.row_start, 0)
}

/** Reads the places of all rows of the series; neighbouring ranges of one file in one read. */
async function readPlaces<T extends StitchRecord>(
  source: ParquetSource,
  series: readonly CatalogSeries[],
  reading: Reading<T>,
): Promise<Placed<T>[]> {
  const places: Placed<T>[] = []
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
    for (const place of await readRun(source, run, reading)) places.push(place)
    index += run.length
  }
  return places
}

async function readRun<T extends StitchRecord>(
  source: ParquetSource,
  run: readonly CatalogSeries[],
  reading: Reading<T>,
): Promise<Placed<T>[]> {
  const key = run[0]?.key ?? ''
  const start = run[0]?.row_start ?? 0
  const columns = reading.columns(await source.columns(key))
  const rows = await source.read(key, columns, start, run.at(-1)?.row_end ?? 0)
  return run.flatMap((series) =>
    rows.slice(series.row_start - start, series.row_end - start).map((row, index) => {
      const place = { ...reading.from(row), key, row: series.row_start + index }
      checkPlace(series, place)
      return place
    }),
  )
}

/** The catalogue and the file must agree; a stale catalogue must not deliver a wrong tensor. */
function checkPlace(series: CatalogSeries, place: PayloadPlace): void {
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
function dropDuplicates<T extends PayloadPlace>(rows: readonly T[]): T[] {
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

function payloadBytes(plan: StitchPlan, rows: readonly PayloadPlace[]): number {
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

function fingerprint(query: TensorQuery, plan: StitchPlan, rows: readonly PayloadPlace[]): string {
  const parts = plan.segments.map((segment) => {
    const row = rows[segment.row]
    return [row?.step, row?.token_start, row?.data_crc32c, row?.data_bytes, segment]
  })
  const facts = [plan.shape, plan.dtype.name, plan.heads, plan.gaps, plan.completeness]
  const text = JSON.stringify([query.traceId, query.hook, query.layer, facts, parts])
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

function compareText(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}
