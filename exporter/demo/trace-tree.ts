/** The spans of one trace, wherever they were read, drawn as a tree. It reads nothing itself. */

export interface TraceSpan {
  readonly spanId: string
  /** Null for a span without a parent; the parent itself may be missing from the trace. */
  readonly parentSpanId: string | null
  readonly name: string
  readonly service: string
  /** Microseconds of Unix time. */
  readonly startMicros: number
  readonly durationMicros: number
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: readonly string[]
}

/** Those whose parent is not among the spans: it is the caller's, or there is none. */
export function rootsOf(spans: readonly TraceSpan[]): TraceSpan[] {
  const known = new Set(spans.map((span) => span.spanId))
  return spans.filter((span) => span.parentSpanId === null || !known.has(span.parentSpanId))
}

/** Where the spans of a request hang. */
export interface Ancestry {
  /** The span of a client that sends none, in which the others lie; null: one of them is the root. */
  readonly client: string | null
  /** How many services send spans of it, the exporter among them. */
  readonly services: number
}

/** Whether the spans of all services have come and hang together. */
export function isWhole(spans: readonly TraceSpan[], { client, services }: Ancestry): boolean {
  const roots = rootsOf(spans)
  const together =
    client === null
      ? roots.length === 1
      : roots.every(({ parentSpanId }) => parentSpanId === client)
  const sent = new Set(spans.map((span) => span.service)).size
  return together && sent >= services && spans.some(({ name }) => name === 'ring2 request')
}

export function drawTree(spans: readonly TraceSpan[]): string[] {
  return rootsOf(spans).flatMap((root) => draw(root, spans, ''))
}

function draw(span: TraceSpan, spans: readonly TraceSpan[], indent: string): string[] {
  const children = spans
    .filter((other) => other.parentSpanId === span.spanId)
    .sort((a, b) => a.startMicros - b.startMicros)
  const millis = (span.durationMicros / 1000).toFixed(1)
  const events = span.events.length === 0 ? '' : `  · ${eventsText(span.events)}`
  return [
    `${`${indent}${span.name}`.padEnd(44)} ${millis.padStart(9)} ms  ${span.service}${events}`,
    ...children.flatMap((child) => draw(child, spans, `${indent}  `)),
  ]
}

/** Each name once, with how often. */
function eventsText(events: readonly string[]): string {
  const names = [...new Set(events)]
  return names
    .map((name) => {
      const times = events.filter((event) => event === name).length
      return times === 1 ? name : `${name} ×${times}`
    })
    .join(', ')
}
