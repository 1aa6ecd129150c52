/**
 * Joins requests with trace contexts that come from elsewhere: spans of other processes that name a
 * request. Pure functions of one context and one request; contexts-join.ts keeps both until they meet.
 *
 * A join never changes what was stored: rows keep the trace id they were written with.
 */
import { deriveSpanId, TRACE_FLAG_SAMPLED } from './ids.ts'
import { collectorLimits } from './limits.ts'
import type { RequestInfo, RequestSummary, TimeWindow } from './records.ts'

/** A span that names a request: it becomes the parent of the request's span. */
export interface CallerContext extends TimeWindow {
  /** Ids that it names the request by, the most telling one first; never empty. */
  readonly requestIds: readonly string[]
  readonly traceId: string
  readonly spanId: string
  readonly traceState: string | null
}

/** Told apart requests of one id carry it; see requests.ts. */
const REPEATED = /~\d+$/
/** vLLM's internal request id is the external one with eight random digits. */
const INTERNAL = /-[0-9a-f]{8}$/

/** Ids that a context may know a request by, the exact one first. */
export function joinNames(requestId: string): string[] {
  const plain = requestId.replace(REPEATED, '')
  return [...new Set([requestId, plain, plain.replace(INTERNAL, '')])]
}

/** Whether a context means this very id, and not what is left of it. */
export function isExactName(name: string, requestId: string): boolean {
  return name === requestId || name === requestId.replace(REPEATED, '')
}

/** The request in the context's trace, below its span. */
export function adopt(info: RequestInfo, context: CallerContext): RequestInfo {
  const { traceId, spanId, traceState, startedAtMicros, endedAtMicros } = context
  return {
    ...info,
    traceId,
    spanId: deriveSpanId(traceId, info.requestId, 'request'),
    parentSpanId: spanId,
    // A span that was exported was sampled; senders such as Python's SDK leave its flag out.
    traceFlags: TRACE_FLAG_SAMPLED,
    traceState,
    traceOrigin: 'tap',
    parentWindow: { startedAtMicros, endedAtMicros },
  }
}

/** As `adopt`, for a request whose rows are stored under its first trace id. */
export function adoptStored(summary: RequestSummary, context: CallerContext): RequestSummary {
  const { request } = summary
  const adopted = adopt(request, context)
  const storedTraceId = request.storedTraceId ?? request.traceId
  const moved = storedTraceId !== adopted.traceId
  return { ...summary, request: moved ? { ...adopted, storedTraceId } : adopted }
}

/** Whether both ran at the same time, give or take what clocks of one machine differ by. */
export function overlaps(context: CallerContext, window: TimeWindow): boolean {
  const slack = collectorLimits.clockSkewMicros
  return (
    context.endedAtMicros >= window.startedAtMicros - slack &&
    context.startedAtMicros <= window.endedAtMicros + slack
  )
}

export function windowOf(summary: RequestSummary): TimeWindow {
  const { startedAtMicros } = summary.request
  return { startedAtMicros, endedAtMicros: Math.max(startedAtMicros, summary.endedAtMicros) }
}

/**
 * How far a window reaches out of its parent's, in microseconds: above 0 behind its end, below 0
 * before its start, 0 when it lies within. Of both, the larger.
 */
export function skewMicros(window: TimeWindow, parent: TimeWindow): number {
  const early = Math.max(0, parent.startedAtMicros - window.startedAtMicros)
  const late = Math.max(0, window.endedAtMicros - parent.endedAtMicros)
  return late >= early ? late : -early
}

/**
 * Puts times of a request into its parent's window. Where both overlap, what reaches out is cut off;
 * where they do not, the clocks disagree, and the request is moved to the parent's start first.
 */
export function placeInside(window: TimeWindow, parent: TimeWindow): (micros: number) => number {
  const apart =
    window.startedAtMicros > parent.endedAtMicros || window.endedAtMicros < parent.startedAtMicros
  const move = apart ? parent.startedAtMicros - window.startedAtMicros : 0
  return (micros) => Math.min(Math.max(micros + move, parent.startedAtMicros), parent.endedAtMicros)
}
