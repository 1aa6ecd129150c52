/**
 * Tells when the spans of a request have left the process for good: taken by the Collector, refused
 * by it, or never made because the caller did not sample. Spans that the queue's bounds pushed out,
 * or that were left at a stop, get no receipt.
 */

import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { type RequestKey, requestKey } from '../catalog/sent.ts'
import type { SpanSink } from './span-sink.ts'

export interface SpanReceipts {
  /** A sink that asks for a receipt for each request. */
  watch(sink: SpanSink): SpanSink
  /** A span was made. */
  made(span: ReadableSpan): void
  /** Spans have left, in the order in which they were made. */
  left(spans: readonly ReadableSpan[]): void
}

/** @param requestsMax requests waited for; beyond it the oldest get no receipt. */
export function createSpanReceipts(
  requestsMax: number,
  onSent: (key: RequestKey) => void,
): SpanReceipts {
  const waiting = new Map<string, RequestKey>()
  let made = ''
  const nameOf = (span: ReadableSpan): string => {
    const { traceId, spanId } = span.spanContext()
    return traceId + spanId
  }
  return {
    watch: (sink) => ({
      finish: (summary) => {
        const name = summary.request.traceId + summary.request.spanId
        made = ''
        sink.finish(summary)
        // The request's own span ends last.
        if (made !== name) return onSent(requestKey(summary))
        waiting.delete(name)
        waiting.set(name, requestKey(summary))
        if (waiting.size > requestsMax) waiting.delete(waiting.keys().next().value as string)
      },
    }),
    made: (span) => {
      made = nameOf(span)
    },
    left: (spans) => {
      for (const span of spans) {
        const name = nameOf(span)
        const key = waiting.get(name)
        if (key === undefined) continue
        waiting.delete(name)
        onSent(key)
      }
    },
  }
}
