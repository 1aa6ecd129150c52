/** The spans of one trace, as the demo's OTLP receiver wrote them, drawn as a tree. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { demoLimits } from './limits.ts'

interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
}

interface Line {
  readonly traces?: {
    readonly resource?: {
      readonly attributes?: readonly { key: string; value: { stringValue?: string } }[]
    }
    readonly scopeSpans?: readonly { readonly spans?: readonly Span[] }[]
  }
}

interface NamedSpan extends Span {
  readonly service: string
}

function readSpans(path: string, traceId: string): NamedSpan[] {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
  return lines.flatMap((text) => {
    const { traces } = JSON.parse(text) as Line
    const service =
      traces?.resource?.attributes?.find(({ key }) => key === 'service.name')?.value.stringValue ??
      'unknown'
    return (traces?.scopeSpans ?? [])
      .flatMap((scope) => scope.spans ?? [])
      .filter((span) => span.traceId === traceId)
      .map((span) => ({ ...span, service }))
  })
}

/** Whether the spans hang together: one root, whose own parent is the client's. */
function isWhole(spans: readonly NamedSpan[]): boolean {
  const known = new Set(spans.map((span) => span.spanId))
  const roots = spans.filter((span) => !known.has(span.parentSpanId ?? ''))
  return roots.length === 1 && new Set(spans.map((span) => span.service)).size > 1
}

/** Waits until app and exporter have sent their spans, then draws them. */
export async function traceTree(path: string, traceId: string): Promise<string[]> {
  const until = performance.now() + demoLimits.storedMillis
  let spans = readSpans(path, traceId)
  while (!isWhole(spans) && performance.now() < until) {
    await sleep(demoLimits.pollMillis)
    spans = readSpans(path, traceId)
  }
  const known = new Set(spans.map((span) => span.spanId))
  const roots = spans.filter((span) => !known.has(span.parentSpanId ?? ''))
  return roots.flatMap((root) => draw(root, spans, ''))
}

function draw(span: NamedSpan, spans: readonly NamedSpan[], indent: string): string[] {
  const nanos = BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano)
  const millis = Number(nanos / 1000n) / 1000
  const children = spans
    .filter((other) => other.parentSpanId === span.spanId)
    .sort((a, b) => (BigInt(a.startTimeUnixNano) < BigInt(b.startTimeUnixNano) ? -1 : 1))
  const name = `${indent}${span.name}`
  return [
    `${name.padEnd(44)} ${millis.toFixed(1).padStart(9)} ms  ${span.service}`,
    ...children.flatMap((child) => draw(child, spans, `${indent}  `)),
  ]
}
