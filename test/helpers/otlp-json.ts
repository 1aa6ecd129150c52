/** OTLP documents as JSON, small enough to write by hand: what a test sends to a real Collector. */
import { randomBytes } from 'node:crypto'

type Value = string | number | boolean

export interface SpanFacts {
  readonly traceId: string
  readonly name: string
  readonly spanId?: string
  readonly parentSpanId?: string
  readonly service?: string
  /** The instrumentation scope; ours is `ring2-exporter`. */
  readonly scope?: string
  readonly attributes?: Readonly<Record<string, Value>>
  readonly error?: boolean
}

export const newTraceId = (): string => randomBytes(16).toString('hex')

const nanos = (millis: number): string => `${BigInt(Math.round(millis)) * 1_000_000n}`

function attributes(values: Readonly<Record<string, Value>>): unknown[] {
  return Object.entries(values).map(([key, value]) => {
    if (typeof value === 'string') return { key, value: { stringValue: value } }
    if (typeof value === 'boolean') return { key, value: { boolValue: value } }
    return { key, value: { doubleValue: value } }
  })
}

/** An ExportTraceServiceRequest with each span in a resource and scope of its own. */
export function tracesDocument(spans: readonly SpanFacts[]): unknown {
  const now = Date.now()
  return {
    resourceSpans: spans.map((span) => ({
      resource: { attributes: attributes({ 'service.name': span.service ?? 'test-app' }) },
      scopeSpans: [
        {
          scope: { name: span.scope ?? 'test' },
          spans: [
            {
              traceId: span.traceId,
              spanId: span.spanId ?? randomBytes(8).toString('hex'),
              parentSpanId: span.parentSpanId ?? '',
              name: span.name,
              kind: 1,
              startTimeUnixNano: nanos(now - 50),
              endTimeUnixNano: nanos(now),
              attributes: attributes(span.attributes ?? {}),
              status: { code: span.error === true ? 2 : 0 },
            },
          ],
        },
      ],
    })),
  }
}

export interface HistogramFacts {
  readonly name: string
  readonly unit: string
  readonly attributes: Readonly<Record<string, Value>>
  /** Of scale 0: counts of the buckets (1, 2], (2, 4], (4, 8], … */
  readonly bucketCounts: readonly number[]
  readonly sum: number
  readonly exemplar?: { readonly traceId: string; readonly spanId: string; readonly value: number }
}

/** An ExportMetricsServiceRequest with one cumulative exponential histogram of scale 0. */
export function histogramDocument(facts: HistogramFacts): unknown {
  const now = Date.now()
  const { exemplar } = facts
  const point = {
    attributes: attributes(facts.attributes),
    startTimeUnixNano: nanos(now - 60_000),
    timeUnixNano: nanos(now),
    count: facts.bucketCounts.reduce((sum, count) => sum + count, 0),
    sum: facts.sum,
    scale: 0,
    zeroCount: 0,
    positive: { offset: 0, bucketCounts: facts.bucketCounts },
    exemplars:
      exemplar === undefined
        ? []
        : [
            {
              timeUnixNano: nanos(now),
              asDouble: exemplar.value,
              traceId: exemplar.traceId,
              spanId: exemplar.spanId,
            },
          ],
  }
  return {
    resourceMetrics: [
      {
        resource: {
          attributes: attributes({
            'service.name': 'ring2-exporter',
            'service.instance.id': 'one',
            'host.name': 'here',
          }),
        },
        scopeMetrics: [
          {
            scope: { name: 'ring2-exporter' },
            metrics: [
              {
                name: facts.name,
                unit: facts.unit,
                exponentialHistogram: { aggregationTemporality: 2, dataPoints: [point] },
              },
            ],
          },
        ],
      },
    ],
  }
}
