/** A trace as Jaeger's own API gives it back, and what it says of the request in it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { getJson } from './http.ts'
import { demoLimits } from './limits.ts'
import { type Ancestry, isWhole, type TraceSpan } from './trace-tree.ts'

export interface JaegerEvidence {
  readonly trace_id: string
  readonly services: readonly string[]
  readonly spans: number
  /** Whether the exporter's request span lies in a span of the app, in time too, and its phases in it. */
  readonly under_app: boolean
}

interface Tag {
  readonly key: string
  readonly value: unknown
}

interface JaegerSpan {
  readonly spanID: string
  readonly operationName: string
  readonly processID: string
  readonly startTime: number
  readonly duration: number
  readonly references: readonly { readonly refType: string; readonly spanID: string }[]
  readonly tags: readonly Tag[]
  readonly logs: readonly { readonly fields: readonly Tag[] }[]
}

interface JaegerTrace {
  readonly spans: readonly JaegerSpan[]
  readonly processes: Readonly<Record<string, { readonly serviceName: string }>>
}

/** Every span of the trace; none when Jaeger does not know it. */
export async function readTrace(jaeger: string, traceId: string): Promise<TraceSpan[]> {
  const found = await getJson<{ data: JaegerTrace[] | null }>(
    `${jaeger}/api/traces/${traceId}`,
    404,
  )
  return (found?.data ?? []).flatMap((trace) =>
    trace.spans.map((span) => ({
      spanId: span.spanID,
      parentSpanId: span.references.find(({ refType }) => refType === 'CHILD_OF')?.spanID ?? null,
      name: span.operationName,
      service: trace.processes[span.processID]?.serviceName ?? 'unknown',
      startMicros: span.startTime,
      durationMicros: span.duration,
      attributes: Object.fromEntries(span.tags.map(({ key, value }) => [key, value])),
      events: span.logs.map(({ fields }) =>
        String(fields.find(({ key }) => key === 'event')?.value),
      ),
    })),
  )
}

/** Waits until app and exporter have sent their spans; what there is when they do not. */
export async function waitForTrace(
  jaeger: string,
  traceId: string,
  ancestry: Ancestry,
): Promise<TraceSpan[]> {
  const until = performance.now() + demoLimits.storedMillis
  let spans = await readTrace(jaeger, traceId)
  while (
    !(isWhole(spans, ancestry) && liesUnderApp(spans, ancestry)) &&
    performance.now() < until
  ) {
    await sleep(demoLimits.pollMillis)
    spans = await readTrace(jaeger, traceId)
  }
  return spans
}

export async function jaegerEvidence(
  jaeger: string,
  traceId: string,
  ancestry: Ancestry,
): Promise<JaegerEvidence> {
  const spans = await readTrace(jaeger, traceId)
  return {
    trace_id: traceId,
    services: [...new Set(spans.map((span) => span.service))].sort(),
    spans: spans.length,
    under_app: liesUnderApp(spans, ancestry),
  }
}

/** App span, or the client's that nobody sends → `ring2 request` → `ring2 prefill` and `ring2 decode`, each within its parent's time. */
export function liesUnderApp(
  spans: readonly TraceSpan[],
  { client }: Pick<Ancestry, 'client'>,
): boolean {
  const byId = new Map(spans.map((span) => [span.spanId, span]))
  const requests = spans.filter((span) => span.name === 'ring2 request')
  const phases = spans.filter((span) => /^ring2 (prefill|decode)$/.test(span.name))
  const parentOf = (span: TraceSpan) => byId.get(span.parentSpanId ?? '')
  const within = (span: TraceSpan): boolean => {
    const parent = parentOf(span)
    return (
      parent !== undefined &&
      span.startMicros >= parent.startMicros &&
      endOf(span) <= endOf(parent) + 1 // Jaeger cuts both to microseconds.
    )
  }
  return (
    requests.length > 0 &&
    requests.every(
      (span) =>
        (client !== null && span.parentSpanId === client) ||
        (within(span) && parentOf(span)?.service !== span.service),
    ) &&
    ['ring2 prefill', 'ring2 decode'].every((name) => phases.some((span) => span.name === name)) &&
    phases.every((span) => within(span) && parentOf(span)?.name === 'ring2 request')
  )
}

function endOf(span: TraceSpan): number {
  return span.startMicros + span.durationMicros
}
