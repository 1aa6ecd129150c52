/** Spans as the demo's own OTLP receiver wrote them: one JSON document a line. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { demoLimits } from './limits.ts'
import { type Ancestry, isWhole, type TraceSpan } from './trace-tree.ts'

interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly events?: readonly { readonly name: string }[]
}

interface Line {
  readonly traces?: {
    readonly resource?: {
      readonly attributes?: readonly { key: string; value: { stringValue?: string } }[]
    }
    readonly scopeSpans?: readonly { readonly spans?: readonly Span[] }[]
  }
}

function readSpans(path: string, traceId: string): TraceSpan[] {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
  return lines.flatMap((text) => {
    const { traces } = JSON.parse(text) as Line
    const service =
      traces?.resource?.attributes?.find(({ key }) => key === 'service.name')?.value.stringValue ??
      'unknown'
    return (traces?.scopeSpans ?? [])
      .flatMap((scope) => scope.spans ?? [])
      .filter((span) => span.traceId === traceId)
      .map((span) => traceSpan(span, service))
  })
}

function traceSpan(span: Span, service: string): TraceSpan {
  const start = BigInt(span.startTimeUnixNano)
  return {
    spanId: span.spanId,
    parentSpanId: span.parentSpanId ?? null,
    name: span.name,
    service,
    startMicros: Number(start / 1000n),
    durationMicros: Number((BigInt(span.endTimeUnixNano) - start) / 1000n),
    attributes: {},
    events: (span.events ?? []).map((event) => event.name),
  }
}

/** Waits until app and exporter have sent their spans; what there is when they do not. */
export async function receivedTrace(
  path: string,
  traceId: string,
  ancestry: Ancestry,
): Promise<TraceSpan[]> {
  const until = performance.now() + demoLimits.storedMillis
  let spans = readSpans(path, traceId)
  while (!isWhole(spans, ancestry) && performance.now() < until) {
    await sleep(demoLimits.pollMillis)
    spans = readSpans(path, traceId)
  }
  return spans
}
