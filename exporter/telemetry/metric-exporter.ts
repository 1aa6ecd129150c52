/**
 * Exports metrics by OTLP at an interval: collects the families, encodes them at once, and queues
 * the requests, each point with the time it was taken at. A Collector that was away gets the
 * history in order, within the queue's bound. Never throws, and nobody waits for it.
 *
 * A lost export costs the times between, and no count: temporality is cumulative.
 */

import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { metricLimits } from './limits.ts'
import {
  type EncodedRequest,
  encodeMetrics,
  type MetricSource,
  type RequestLimits,
} from './metric-encoding.ts'
import type { MetricFamily } from './metric-families.ts'
import { createMetricQueue } from './metric-queue.ts'
import type { MetricSender } from './metric-sender.ts'
import { EncodingError } from './retry-decision.ts'
import { createDelivery, type DeliveryStatus } from './retry-delivery.ts'

export interface CurrentFamilies {
  readonly families: readonly MetricFamily[]
  readonly takenAtMicros: number
}

export interface MetricExporterOptions {
  readonly collect: () => CurrentFamilies
  /** Resource and scope; what is found out asynchronously is waited for. */
  readonly source: () => Promise<MetricSource>
  readonly sender: MetricSender
  readonly logger: Logger
  readonly intervalMillis: number
  /** Bound on the encoded bytes that wait. */
  readonly bytesMax: number
  /** Bounds and pauses; a test makes them small. */
  readonly requestLimits?: RequestLimits
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
}

export interface MetricExporter {
  /** Collects and tries now; true when nothing waits any more, false when the time is over. */
  flush(timeoutMillis: number): Promise<boolean>
  /** Collects for the last time and flushes; what is left is lost, and counted. */
  shutdown(timeoutMillis: number): Promise<void>
  status(): DeliveryStatus
}

export function createMetricExporter(options: MetricExporterOptions): MetricExporter {
  const { logger, sender, retryMillisMin, retryMillisMax } = options
  const { requestPointsMax, requestBytesMax, requestBytesMin } = metricLimits
  const queue = createMetricQueue(options.bytesMax)
  let limits = options.requestLimits ?? { pointsMax: requestPointsMax, bytesMax: requestBytesMax }
  let failedBefore = false
  let collecting: Promise<void> = Promise.resolve()

  const delivery = createDelivery<EncodedRequest>({
    what: 'metrics',
    logger,
    queue,
    itemsOf: ({ points }) => points,
    send: sender.send,
    shrink: ({ bytes }) => {
      // The request is lost, because it is encoded already; those of later exports are smaller.
      const bytesMax = Math.max(requestBytesMin, Math.floor(bytes.length / 2))
      limits = { ...limits, bytesMax: Math.min(limits.bytesMax, bytesMax) }
      return false
    },
    close: sender.close,
    ...(retryMillisMin === undefined ? {} : { retryMillisMin }),
    ...(retryMillisMax === undefined ? {} : { retryMillisMax }),
  })

  const collect = async (): Promise<void> => {
    try {
      const source = await options.source()
      if (delivery.closed) return
      const { families, takenAtMicros } = options.collect()
      const requests = encodeMetrics(families, takenAtMicros, source, limits, (error) =>
        delivery.refuse(new EncodingError(error), 1),
      )
      delivery.lose('queue_full', queue.push(requests))
      delivery.start()
      failedBefore = false
    } catch (error) {
      if (!failedBefore) logger.error({ cause: errorText(error) }, 'metrics cannot be collected')
      failedBefore = true
    }
  }
  /** One at a time, in order. */
  const collectNext = (): Promise<void> => {
    collecting = collecting.then(collect)
    return collecting
  }
  const timer = setInterval(() => void collectNext(), options.intervalMillis).unref()

  return {
    flush: async (timeoutMillis) => {
      await collectNext()
      return delivery.flush(timeoutMillis)
    },
    shutdown: async (timeoutMillis) => {
      clearInterval(timer)
      if (!delivery.closed) await collectNext()
      await delivery.shutdown(timeoutMillis)
    },
    status: delivery.status,
  }
}
