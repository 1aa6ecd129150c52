/**
 * Turns request summaries into spans: `ring2 request` under the caller's span, with `ring2 prefill`
 * and `ring2 decode` below it.
 *
 * Ids are given, never random, so that exporting a summary again makes the same spans. Whether a
 * span is recorded is the SDK's sampler's decision: by default, a caller who did not sample gets no
 * spans, and nothing else of the exporter is affected. Where the parent's times are known, a
 * request lies within them.
 */

import {
  type Context,
  createTraceState,
  type Link,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import type { IdGenerator } from '@opentelemetry/sdk-trace'
import { placeInside, windowOf } from '../../collector/contexts.ts'
import { deriveSpanId } from '../../collector/ids.ts'
import type { PhaseSummary, RequestSummary } from '../../collector/records.ts'
import { hrTimeOf } from './hr-time.ts'
import { spanLimits } from './limits.ts'
import {
  evaluationAttributes,
  findingAttributes,
  incompleteAttributes,
  nonfiniteAttributes,
  phaseAttributes,
  requestAttributes,
} from './span-attributes.ts'
import { eventNames, spanNames } from './span-registry.ts'

/** Takes the summary of every request that has ended. Never throws, never waits. */
export interface SpanSink {
  finish(summary: RequestSummary): void
}

/** Hands the SDK the ids that the next span shall have. */
export interface GivenIds extends IdGenerator {
  next(traceId: string, spanId: string): void
}

export function createGivenIds(): GivenIds {
  let ids = { traceId: '', spanId: '' }
  return {
    next: (traceId, spanId) => {
      ids = { traceId, spanId }
    },
    generateTraceId: () => ids.traceId,
    generateSpanId: () => ids.spanId,
  }
}

/**
 * @param tracer a tracer of a provider whose id generator is `ids`.
 * @param tensorsUrl trace id → address of the trace in the explorer.
 */
export function createSpanSink(
  tracer: Tracer,
  ids: GivenIds,
  tensorsUrl: (traceId: string) => string,
): SpanSink {
  const start = (
    name: string,
    spanId: string,
    summary: RequestSummary,
    startedAtMicros: number,
    parent: Context,
    links: Link[] = [],
  ): Span => {
    ids.next(summary.request.traceId, spanId)
    const startTime = hrTimeOf(startedAtMicros)
    return tracer.startSpan(name, { kind: SpanKind.INTERNAL, startTime, links }, parent)
  }
  return {
    finish: (summary) => {
      const { request } = summary
      const parent = parentContext(summary)
      const window = windowOf(summary)
      const { parentWindow } = request
      const place =
        parentWindow === undefined ? (micros: number) => micros : placeInside(window, parentWindow)
      const startedAtMicros = place(window.startedAtMicros)
      const endedAtMicros = place(window.endedAtMicros)
      const { spanId } = request
      const span = start(
        spanNames.request,
        spanId,
        summary,
        startedAtMicros,
        parent,
        links(summary),
      )
      if (!span.isRecording()) return
      // By this one the tensors are found at once, by the caller's once that has been written down.
      const tensors = tensorsUrl(request.storedTraceId ?? request.traceId)
      span.setAttributes(requestAttributes(summary, tensors))
      addEvents(span, summary, endedAtMicros)
      const context = trace.setSpan(ROOT_CONTEXT, span)
      for (const [index, phase] of summary.phases.entries()) {
        const spanId = phaseSpanId(summary, phase, index)
        const from = place(phase.startedAtMicros)
        const child = start(spanNames[phase.phase], spanId, summary, from, context)
        child.setAttributes(phaseAttributes(summary, phase))
        child.end(hrTimeOf(place(Math.max(phase.startedAtMicros, phase.endedAtMicros))))
      }
      span.end(hrTimeOf(endedAtMicros))
    },
  }
}

/** A phase that comes a second time (after preemption) gets an id of its own. */
function phaseSpanId(summary: RequestSummary, phase: PhaseSummary, index: number): string {
  const { traceId, requestId } = summary.request
  const earlier = summary.phases.slice(0, index).filter((other) => other.phase === phase.phase)
  const stage = earlier.length === 0 ? phase.phase : `${phase.phase}#${earlier.length}`
  return deriveSpanId(traceId, requestId, stage)
}

function links(summary: RequestSummary): Link[] {
  const { earlierSpan } = summary.request
  if (earlierSpan === undefined) return []
  return [{ context: { ...earlierSpan, traceFlags: TraceFlags.SAMPLED, isRemote: true } }]
}

function parentContext(summary: RequestSummary): Context {
  const { traceId, parentSpanId, traceFlags, traceState } = summary.request
  if (parentSpanId === null) return ROOT_CONTEXT
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId: parentSpanId,
    traceFlags: traceFlags & TraceFlags.SAMPLED,
    isRemote: true,
    ...(traceState === null ? {} : { traceState: createTraceState(traceState) }),
  })
}

/**
 * The span's status stays unset, whatever the verdict: the model did answer, and an error here would
 * enter the error rates that others compute from spans. What to sample by is `ring2.anomaly`.
 */
function addEvents(span: Span, summary: RequestSummary, atMicros: number): void {
  const time = hrTimeOf(atMicros)
  if (summary.nan + summary.posInf + summary.negInf > 0) {
    span.addEvent(eventNames.nonfinite, nonfiniteAttributes(summary), time)
  }
  if (summary.completeness.state !== 'complete') {
    span.addEvent(eventNames.incomplete, incompleteAttributes(summary), time)
  }
  for (const finding of summary.findings.slice(0, spanLimits.findingsMax)) {
    span.addEvent(eventNames.finding, findingAttributes(finding), time)
  }
  span.addEvent(eventNames.evaluation, evaluationAttributes(summary), time)
}
