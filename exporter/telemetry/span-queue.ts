/**
 * Spans that wait for the Collector, oldest first, within bounds on their number and bytes.
 *
 * The batch in flight stays at the head until its fate is known, and is never pushed out. When the
 * bounds are exceeded the oldest other spans go; the newest one always finds room. It knows nothing
 * of exporting.
 */

import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { estimateSpanBytes } from './span-bytes.ts'

interface Queued {
  readonly span: ReadableSpan
  readonly bytes: number
}

export interface SpanQueue {
  /** Appends a span, and returns how many older ones it pushed out. */
  push(span: ReadableSpan): number
  /** Marks the oldest spans, at least one and within the limits, as in flight. */
  take(spansMax: number, bytesMax: number): ReadableSpan[]
  /** Ends the flight: the batch leaves the queue, or waits again. */
  settle(leave: boolean): void
  /** Empties the queue, and returns how many spans it held. */
  clear(): number
  readonly spans: number
  readonly bytes: number
}

export function createSpanQueue(spansMax: number, bytesMax: number): SpanQueue {
  let queue: Queued[] = []
  let bytes = 0
  let inFlight = 0

  const remove = (start: number, count: number): void => {
    for (const removed of queue.splice(start, count)) bytes -= removed.bytes
  }

  return {
    push: (span) => {
      const queued = { span, bytes: estimateSpanBytes(span) }
      queue.push(queued)
      bytes += queued.bytes
      const removable = queue.length - inFlight - 1
      let gone = 0
      let kept = bytes
      while (gone < removable && (queue.length - gone > spansMax || kept > bytesMax)) {
        kept -= queue[inFlight + gone]?.bytes ?? 0
        gone += 1
      }
      if (gone > 0) remove(inFlight, gone)
      return gone
    },
    take: (batchSpansMax, batchBytesMax) => {
      let batchBytes = 0
      inFlight = 0
      for (const queued of queue) {
        batchBytes += queued.bytes
        const full = inFlight >= batchSpansMax || batchBytes > batchBytesMax
        if (full && inFlight > 0) break
        inFlight += 1
      }
      return queue.slice(0, inFlight).map(({ span }) => span)
    },
    settle: (leave) => {
      if (leave) remove(0, inFlight)
      inFlight = 0
    },
    clear: () => {
      const held = queue.length
      queue = []
      bytes = 0
      inFlight = 0
      return held
    },
    get spans() {
      return queue.length
    },
    get bytes() {
      return bytes
    },
  }
}
