/**
 * A bounded queue of spans in front of an exporter that does not retry. How and when a batch is
 * tried again is retry-delivery.ts's matter; this one knows spans, and how many go together.
 */

import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import type { Logger } from '../logging.ts'
import { spanLimits } from './limits.ts'
import { createDelivery, type DeliveryStatus, type Receipt } from './retry-delivery.ts'
import type { PartialSpanExporter } from './span-exporter.ts'
import { createSpanQueue } from './span-queue.ts'

export interface RetryingExporterOptions {
  readonly exporter: PartialSpanExporter
  readonly logger: Logger
  readonly spansMax: number
  readonly bytesMax: number
  /** Spans that the Collector took, or refused for good. */
  onLeft?(spans: readonly ReadableSpan[]): void
  /** Pauses between tries; a test makes them short. */
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
}

export interface RetryingExporter {
  enqueue(span: ReadableSpan): void
  /** Tries at once, and resolves when nothing waits any more (true) or the time is over (false). */
  flush(timeoutMillis: number): Promise<boolean>
  /** Flushes, counts what is left as lost, and closes the exporter, all within the time. */
  shutdown(timeoutMillis: number): Promise<void>
  /** Pending bytes are estimated. */
  status(): DeliveryStatus
}

export function createRetryingExporter(options: RetryingExporterOptions): RetryingExporter {
  const { exporter, spansMax, bytesMax, ...rest } = options
  const queue = createSpanQueue(spansMax, bytesMax)
  /** Halved while the Collector finds batches too large. */
  let batchSpansMax: number = spanLimits.batchSpansMax
  let inFlight: ReadableSpan[] = []
  const delivery = createDelivery<readonly ReadableSpan[]>({
    ...rest,
    what: 'spans',
    queue: {
      get items() {
        return queue.spans
      },
      get bytes() {
        return queue.bytes
      },
      take: () => {
        inFlight = queue.take(batchSpansMax, spanLimits.batchBytesMax)
        return inFlight
      },
      settle: (leave) => {
        queue.settle(leave)
        if (leave) options.onLeft?.(inFlight)
      },
      clear: queue.clear,
    },
    itemsOf: (batch) => batch.length,
    send: (batch) => exportOnce(exporter, batch),
    shrink: (batch) => {
      batchSpansMax = Math.max(1, Math.ceil(batch.length / 2))
      return batch.length > 1
    },
    taken: () => {
      batchSpansMax = Math.min(spanLimits.batchSpansMax, batchSpansMax * 2)
    },
    close: () => exporter.shutdown(),
  })
  return {
    enqueue: (span) => {
      if (delivery.closed) {
        delivery.lose('shutdown', 1)
        return
      }
      delivery.lose('queue_full', queue.push(span))
      delivery.start()
    },
    flush: delivery.flush,
    shutdown: delivery.shutdown,
    status: delivery.status,
  }
}

async function exportOnce(
  exporter: PartialSpanExporter,
  batch: readonly ReadableSpan[],
): Promise<Receipt> {
  // Attributes of the resource that are found asynchronously must be there before the first span.
  await batch[0]?.resource.waitForAsyncAttributes?.()
  return new Promise((resolve, reject) => {
    exporter.export([...batch], (result) => {
      const rejected = exporter.takeRejected?.() ?? 0
      if (result.code === 0) resolve({ error: null, rejected })
      else reject(result.error ?? new Error('no reason given'))
    })
  })
}
