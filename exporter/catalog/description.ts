/**
 * What the catalogue has to know of one Parquet file: its requests and its series, where a series
 * is the run of rows of one (trace, request, hook, layer, ranks). Rows of a file are sorted so that
 * every series is one range of rows.
 *
 * A description is made when the file is written, travels beside it in the spool, and can be made
 * again from the columns of the file: both ways lead through the functions here.
 */

import type { RequestSummary, TensorRow } from '../../collector/records.ts'
import { producerLabel } from '../parquet/schema.ts'
import type { Dataset } from '../store/keys.ts'

/** The columns that tell a row's place; what `describeTensors` reads of a row. */
export interface TensorPlace {
  readonly trace_id: string
  readonly span_id: string | null
  readonly request_id: string
  readonly model: string
  readonly model_revision: string
  readonly engine: string
  readonly hook: string
  readonly layer: number
  readonly step: number
  readonly token_start: number
  readonly token_end: number
  readonly tp_rank: number
  readonly pp_rank: number
  readonly dp_rank: number
  readonly ep_rank: number
  readonly captured_at: number
  readonly dtype: string
  readonly data_bytes: number
  readonly producer: string
  readonly host: string
}

export const placeColumns = [
  'trace_id',
  'span_id',
  'request_id',
  'model',
  'model_revision',
  'engine',
  'hook',
  'layer',
  'step',
  'token_start',
  'token_end',
  'tp_rank',
  'pp_rank',
  'dp_rank',
  'ep_rank',
  'captured_at',
  'dtype',
  'data_bytes',
  'producer',
  'host',
] as const satisfies readonly (keyof TensorPlace)[]

export interface SeriesRange {
  readonly trace_id: string
  readonly request_id: string
  readonly producer: string
  readonly hook: string
  readonly layer: number
  readonly tp_rank: number
  readonly pp_rank: number
  readonly dp_rank: number
  readonly ep_rank: number
  readonly dtype: string
  /** Rows [row_start, row_end) of the file. */
  readonly row_start: number
  readonly row_end: number
  readonly token_start: number
  readonly token_end: number
  readonly bytes: number
}

type OpenSeries = { -readonly [Field in keyof SeriesRange]: SeriesRange[Field] }

/** A request as far as a file tells of it; `summary` is null until it has ended. */
export interface RequestEntry {
  readonly trace_id: string
  readonly request_id: string
  readonly producer: string
  readonly span_id: string | null
  readonly model: string
  readonly model_revision: string
  readonly engine: string
  readonly host: string
  /** Microseconds since the epoch: the start, or the first capture while no summary came. */
  readonly started_at: number
  readonly summary: RequestSummary | null
}

/** A request that is known by another trace id than that of its rows. */
export interface AliasEntry {
  readonly trace_id: string
  /** Span of the request in that trace. */
  readonly span_id: string
  /** Trace id of its rows. */
  readonly stored_trace_id: string
  readonly request_id: string
  readonly producer: string
  /** The parent span; left out, or null, in what earlier versions wrote, like all that follows. */
  readonly parent_span_id?: string | null
  readonly trace_state?: string | null
  /** When the parent span ran, in microseconds since the epoch. */
  readonly parent_started_at?: number | null
  readonly parent_ended_at?: number | null
}

/** One part of a model's vocabulary, in a row of a `vocabularies` file. */
export interface VocabularyEntry {
  readonly fingerprint: string
  /** Parts are counted from 0; all of them make the vocabulary. */
  readonly part: number
  readonly parts: number
  readonly model: string
  readonly row: number
}

export interface FileDescription {
  readonly key: string
  readonly dataset: Dataset
  readonly bytes: number
  readonly rows: number
  readonly series: readonly SeriesRange[]
  readonly requests: readonly RequestEntry[]
  /**
   * Where the file's tail begins: everything but payloads, so all that must be known before a payload
   * can be found. Left out where payloads and other columns alternate, as earlier versions wrote them.
   */
  readonly tail_start?: number
  /** Left out where there are none. */
  readonly aliases?: readonly AliasEntry[]
  /** Left out where there are none. */
  readonly vocabularies?: readonly VocabularyEntry[]
}

export interface FileFacts {
  readonly key: string
  readonly bytes: number
  readonly tail_start?: number
}

/** Describes a tensor file from its rows, in file order. */
export function describeTensors(file: FileFacts, rows: Iterable<TensorPlace>): FileDescription {
  const describer = createTensorDescriber()
  for (const row of rows) describer.add(row)
  return describer.finish(file)
}

/** Describes a tensor file from rows that come one by one, so that they need not be kept. */
export function createTensorDescriber() {
  const series: OpenSeries[] = []
  const requests = new Map<string, RequestEntry>()
  let index = 0
  let current: OpenSeries | null = null
  let startedAt = Number.NaN

  /**
   * @param rows how many rows of one series the place stands for: its bytes are theirs together, its
   *   tokens and its time reach from the first to the last of them.
   */
  function add(row: TensorPlace, rows = 1): void {
    const continues = current !== null && sameSeries(current, row)
    if (current !== null && continues) {
      extend(current, row, rows)
    } else {
      current = startSeries(row, index, rows)
      series.push(current)
    }
    // A row tells nothing new of its request unless it is the first of a series, or earlier.
    if (!continues || row.captured_at < startedAt) startedAt = noteRequest(requests, row)
    index += rows
  }

  function finish(file: FileFacts): FileDescription {
    return { ...file, dataset: 'tensors', rows: index, series, requests: [...requests.values()] }
  }

  return { add, finish }
}

/** Describes a file of ended requests. */
export function describeRequests(
  file: FileFacts,
  summaries: readonly RequestSummary[],
): FileDescription {
  const requests = summaries.map(requestEntry)
  return { ...file, dataset: 'requests', rows: requests.length, series: [], requests }
}

/** Describes a file of requests whose trace context came late. */
export function describeContexts(file: FileFacts, aliases: readonly AliasEntry[]): FileDescription {
  const none = { series: [], requests: [] }
  return { ...file, dataset: 'contexts', rows: aliases.length, ...none, aliases }
}

export function aliasEntry({ request, producer }: RequestSummary): AliasEntry {
  return {
    trace_id: request.traceId,
    span_id: request.spanId,
    stored_trace_id: request.storedTraceId ?? request.traceId,
    request_id: request.requestId,
    producer: producerLabel(producer),
    parent_span_id: request.parentSpanId,
    trace_state: request.traceState,
    parent_started_at: request.parentWindow?.startedAtMicros ?? null,
    parent_ended_at: request.parentWindow?.endedAtMicros ?? null,
  }
}

function requestEntry(summary: RequestSummary): RequestEntry {
  return {
    trace_id: summary.request.traceId,
    request_id: summary.request.requestId,
    producer: producerLabel(summary.producer),
    span_id: summary.request.spanId,
    model: summary.model.name,
    model_revision: summary.model.revision,
    engine: summary.model.engine,
    host: summary.producer.host,
    started_at: summary.request.startedAtMicros,
    summary,
  }
}

/** The place of a row that is about to be written. */
export function placeOf(row: TensorRow): TensorPlace {
  return {
    trace_id: row.request.traceId,
    span_id: row.request.spanId === '' ? null : row.request.spanId,
    request_id: row.request.requestId,
    model: row.model.name,
    model_revision: row.model.revision,
    engine: row.model.engine,
    hook: row.hook,
    layer: row.layer,
    step: row.step,
    token_start: row.tokenStart,
    token_end: row.tokenEnd,
    tp_rank: row.ranks.tp,
    pp_rank: row.ranks.pp,
    dp_rank: row.ranks.dp,
    ep_rank: row.ranks.ep,
    captured_at: row.capturedAtMicros,
    dtype: row.dtype,
    data_bytes: row.decodedBytes ?? row.data.byteLength,
    producer: producerLabel(row.producer),
    host: row.producer.host,
  }
}

/** File order: one series is one range of rows, one request's series lie together. */
export function compareRows(left: TensorRow, right: TensorRow): number {
  return compareSeries(left, right) || left.step - right.step || left.tokenStart - right.tokenStart
}

/** The order of two rows' series; 0 for rows of one series, which their steps put in order. */
export function compareSeries(left: TensorRow, right: TensorRow): number {
  return (
    compareText(left.request.traceId, right.request.traceId) ||
    compareText(left.request.requestId, right.request.requestId) ||
    compareText(left.hook, right.hook) ||
    left.layer - right.layer ||
    left.ranks.tp - right.ranks.tp ||
    left.ranks.pp - right.ranks.pp ||
    left.ranks.dp - right.ranks.dp ||
    left.ranks.ep - right.ranks.ep
  )
}

function compareText(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}

function sameSeries(series: SeriesRange, row: TensorPlace): boolean {
  return (
    series.trace_id === row.trace_id &&
    series.request_id === row.request_id &&
    series.producer === row.producer &&
    series.hook === row.hook &&
    series.layer === row.layer &&
    series.tp_rank === row.tp_rank &&
    series.pp_rank === row.pp_rank &&
    series.dp_rank === row.dp_rank &&
    series.ep_rank === row.ep_rank &&
    series.dtype === row.dtype
  )
}

function extend(series: OpenSeries, row: TensorPlace, rows: number): void {
  series.row_end += rows
  series.token_start = Math.min(series.token_start, row.token_start)
  series.token_end = Math.max(series.token_end, row.token_end)
  series.bytes += row.data_bytes
}

function startSeries(row: TensorPlace, index: number, rows: number): OpenSeries {
  return {
    trace_id: row.trace_id,
    request_id: row.request_id,
    producer: row.producer,
    hook: row.hook,
    layer: row.layer,
    tp_rank: row.tp_rank,
    pp_rank: row.pp_rank,
    dp_rank: row.dp_rank,
    ep_rank: row.ep_rank,
    dtype: row.dtype,
    row_start: index,
    row_end: index + rows,
    token_start: row.token_start,
    token_end: row.token_end,
    bytes: row.data_bytes,
  }
}

/** Returns when the request started, as far as is known now. */
function noteRequest(requests: Map<string, RequestEntry>, row: TensorPlace): number {
  // A length before each part keeps ids with any character apart.
  const key = `${row.trace_id} ${row.producer.length} ${row.producer} ${row.request_id}`
  const known = requests.get(key)
  if (known !== undefined) {
    if (row.captured_at >= known.started_at) return known.started_at
    requests.set(key, { ...known, started_at: row.captured_at })
    return row.captured_at
  }
  requests.set(key, {
    trace_id: row.trace_id,
    request_id: row.request_id,
    producer: row.producer,
    span_id: row.span_id,
    model: row.model,
    model_revision: row.model_revision,
    engine: row.engine,
    host: row.host,
    started_at: row.captured_at,
    summary: null,
  })
  return row.captured_at
}
