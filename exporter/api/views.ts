/**
 * What the API shows of the catalogue and the reader: snake_case fields, times as text, ranges as
 * pairs. Pure functions; the shapes are those of schemas.ts.
 */

import type { Finding, ParallelInfo, RequestSummary } from '../../collector/records.ts'
import type { CatalogSeries } from '../catalog/catalog.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import { producersOf } from '../catalog/parallel.ts'
import { producerLabel } from '../parquet/schema.ts'
import type { TensorRowPlace } from '../tensors/payloads.ts'
import type { TokenRange } from '../tensors/selection.ts'

/** `2026-03-04T05:06:07.123456Z`. */
export function timeText(micros: number): string {
  const millis = Math.floor(micros / 1000)
  const rest = `${micros - millis * 1000}`.padStart(3, '0')
  return `${new Date(millis).toISOString().slice(0, -1)}${rest}Z`
}

export function rangePair(range: TokenRange): [number, number] {
  return [range.start, range.end]
}

export function requestView(request: CatalogRequest) {
  return {
    trace_id: request.trace_id,
    caller_trace_id: request.caller_trace_id,
    request_id: request.request_id,
    span_id: request.span_id,
    model: request.model,
    model_revision: request.model_revision,
    engine: request.engine,
    producer: request.producer,
    host: request.host,
    started_at: timeText(request.started_at),
    ended_at: request.ended_at === null ? null : timeText(request.ended_at),
    tokens: request.tokens,
    prompt_tokens: request.prompt_tokens,
    steps: request.steps,
    verdict: request.verdict,
    completeness: request.completeness,
    tensors_stored: request.tensors_stored,
    bytes_stored: request.bytes_stored,
  }
}

export function traceView(
  traceId: string,
  requests: readonly CatalogRequest[],
  series: readonly CatalogSeries[],
) {
  return {
    trace_id: traceId,
    requests: requests.map((request) => {
      const producers = producersOf(request)
      const own = series.filter(
        (one) => one.request_id === request.request_id && producers.has(one.producer),
      )
      return {
        ...requestView(request),
        details: detailsView(request.summary),
        tensors: heldTensors(own),
      }
    }),
  }
}

/** The processes that ran the request together; null for a model in one process. */
function parallelView(parallel: ParallelInfo | undefined) {
  if (parallel === undefined) return null
  const { world, parts } = parallel
  return {
    world: { tp: world.tp, pp: world.pp, dp: world.dp, ep: world.ep },
    ranks: parts.map(({ producer, ranks, steps, completeness }) => ({
      producer: producerLabel(producer),
      host: producer.host,
      ...{ tp_rank: ranks.tp, pp_rank: ranks.pp, dp_rank: ranks.dp, ep_rank: ranks.ep },
      ...{ steps, completeness },
    })),
  }
}

/** The text is a RequestSummary that this exporter wrote. */
function detailsView(text: string | null) {
  if (text === null) return null
  const summary: RequestSummary = JSON.parse(text)
  return {
    parent_span_id: summary.request.parentSpanId,
    attributes: summary.request.attributes,
    phases: summary.phases.map((one) => ({
      phase: one.phase,
      started_at: timeText(one.startedAtMicros),
      ended_at: timeText(one.endedAtMicros),
      tokens: rangePair({ start: one.tokenStart, end: one.tokenEnd }),
      steps: one.steps,
    })),
    completeness: summary.completeness,
    // Summaries of stores that are older than verdicts by rules have none of these.
    findings: (summary.findings ?? []).map(findingView),
    missing_evidence: summary.missingEvidence ?? [],
    baseline: summary.baseline ?? 'default',
    tensors_stored: summary.tensorsStored,
    nonfinite: { nan: summary.nan, pos_inf: summary.posInf, neg_inf: summary.negInf },
    statistics: { layers: summary.layerSeries, globals: summary.globals },
    parallel: parallelView(summary.parallel),
  }
}

function findingView(finding: Finding) {
  const { verdict, statistic, value, bound, direction, layer, phase = null } = finding
  return { verdict, statistic, value, bound, direction, layer, phase }
}

interface HeldTensor {
  readonly hook: string
  readonly layer: number
  readonly tp_rank: number
  readonly pp_rank: number
  readonly dp_rank: number
  readonly ep_rank: number
  readonly dtype: string
  readonly token_start: number
  readonly token_end: number
  readonly rows: number
  readonly bytes: number
}

/** Hooks × layers × ranks, each summed over the files that hold parts of it. */
function heldTensors(series: readonly CatalogSeries[]): HeldTensor[] {
  const held = new Map<string, HeldTensor>()
  for (const one of series) {
    const { hook, layer, tp_rank, pp_rank, dp_rank, ep_rank, dtype } = one
    const key = [hook, layer, tp_rank, pp_rank, dp_rank, ep_rank, dtype].join(' ')
    const known = held.get(key)
    held.set(key, {
      ...{ hook, layer, tp_rank, pp_rank, dp_rank, ep_rank, dtype },
      token_start: Math.min(known?.token_start ?? one.token_start, one.token_start),
      token_end: Math.max(known?.token_end ?? one.token_end, one.token_end),
      rows: (known?.rows ?? 0) + one.row_end - one.row_start,
      bytes: (known?.bytes ?? 0) + one.bytes,
    })
  }
  return [...held.values()]
}

export function tensorRowView(row: TensorRowPlace) {
  return {
    request_id: row.request_id,
    producer: row.producer,
    hook: row.hook,
    layer: row.layer,
    step: row.step,
    phase: row.phase,
    tokens: rangePair({ start: row.token_start, end: row.token_end }),
    kv_offset: row.kv_offset,
    tp_rank: row.tp_rank,
    pp_rank: row.pp_rank,
    dp_rank: row.dp_rank,
    ep_rank: row.ep_rank,
    captured_at: timeText(row.captured_at),
    dtype: row.dtype,
    shape: row.shape,
    encoding: row.encoding,
    data_bytes: row.data_bytes,
    data_crc32c: row.data_crc32c,
    statistics: {
      l2_mean: row.l2_mean,
      l2_max: row.l2_max,
      abs_max: row.abs_max,
      mean: row.mean,
      std: row.std,
      entropy_mean: row.entropy_mean,
      sink_mass: row.sink_mass,
      top1_probability_mean: row.top1_probability_mean,
      margin_mean: row.margin_mean,
      surprisal_mean: row.surprisal_mean,
    },
    nonfinite: row.nonfinite,
    file: row.key,
    row: row.row,
  }
}
