/**
 * The tap: makes trace contexts of spans that other processes sent. A span that names a request
 * becomes the parent of the request's span; every other span is none of our business.
 *
 * Pure functions. A span that names a request and is malformed is counted by its first fault, and
 * the others of its request are taken.
 */

import type { CallerContext } from '../../collector/contexts.ts'
import { isZeroId } from '../../collector/ids.ts'
import { collectorLimits } from '../../collector/limits.ts'
import type { ContextFault } from '../../collector/records.ts'
import { SERVICE_NAME } from './resource.ts'
import { requestIdAttributes, type TapSpan } from './tap-spans.ts'

export interface TapBatch {
  readonly contexts: readonly CallerContext[]
  readonly faults: Readonly<Partial<Record<ContextFault, number>>>
  /** Spans that were not taken because of a fault. */
  readonly rejected: number
}

const TRACE_ID = /^[0-9a-f]{32}$/
const SPAN_ID = /^[0-9a-f]{16}$/

const faultTexts: Readonly<Partial<Record<ContextFault, string>>> = {
  span_trace_id: 'a trace_id of 16 bytes, not all zero',
  span_id: 'a span_id of 8 bytes, not all zero',
  span_request_id: `a request id of 1 to ${collectorLimits.attributeCharactersMax} characters`,
  span_time: 'a start and an end that is not before it, from 1970 to 2255',
}

export function contextsOf(spans: readonly TapSpan[]): TapBatch {
  const found: { rank: number; context: CallerContext }[] = []
  const faults: Partial<Record<ContextFault, number>> = {}
  let rejected = 0
  for (const span of spans) {
    // Our own spans name their requests too, and come back where a Collector sends all it has.
    if (span.scope === SERVICE_NAME) continue
    const requestIds = requestIdsOf(span)
    const fault = faultOf(span, requestIds)
    if (fault !== null) {
      faults[fault] = (faults[fault] ?? 0) + 1
      rejected += 1
      continue
    }
    const { traceId, spanId, traceState, startedAtMicros, endedAtMicros } = span
    const tooLong = traceState.length > collectorLimits.traceStateCharactersMax
    const state = traceState === '' || tooLong ? null : traceState
    const times = { startedAtMicros, endedAtMicros }
    const context = { requestIds, traceId, spanId, traceState: state, ...times }
    found.push({ rank: rankOf(span), context })
  }
  // Where two spans name one request, the one that comes first becomes its parent.
  found.sort((left, right) => left.rank - right.rank)
  return { contexts: found.map(({ context }) => context), faults, rejected }
}

/** An engine names a request by the id it has there, a client by that of the answer. */
function rankOf(span: TapSpan): number {
  return requestIdAttributes.findIndex((name) => span.ids.has(name))
}

/** What is expected of a span, for the sender's log. */
export function faultText(faults: TapBatch['faults']): string {
  const kinds = Object.keys(faults) as ContextFault[]
  return `expected ${kinds.map((kind) => faultTexts[kind] ?? kind).join('; ')}`
}

function requestIdsOf(span: TapSpan): string[] {
  const ids = requestIdAttributes.flatMap((name) => span.ids.get(name) ?? [])
  const fitting = ids.filter(
    (id) => id !== '' && id.length <= collectorLimits.attributeCharactersMax,
  )
  return [...new Set(fitting)]
}

function faultOf(span: TapSpan, requestIds: readonly string[]): ContextFault | null {
  if (!TRACE_ID.test(span.traceId) || isZeroId(span.traceId)) return 'span_trace_id'
  if (!SPAN_ID.test(span.spanId) || isZeroId(span.spanId)) return 'span_id'
  if (requestIds.length === 0) return 'span_request_id'
  const { startedAtMicros, endedAtMicros } = span
  // What is later is not exact as a number, and what is later still is beyond OTLP's 64 bits.
  const timed = Number.isSafeInteger(startedAtMicros) && Number.isSafeInteger(endedAtMicros)
  if (!timed || startedAtMicros <= 0 || endedAtMicros < startedAtMicros) return 'span_time'
  return null
}
