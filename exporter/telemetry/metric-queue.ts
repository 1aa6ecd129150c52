/**
 * Exports of metrics that wait for the Collector, oldest first, within a bound on their bytes.
 *
 * An export is whole: its requests leave one by one, in order, and when the bound is exceeded the
 * oldest exports go with all that is left of them. The request in flight stays with its export
 * until its fate is known, and the newest export always finds room.
 */

import type { EncodedRequest } from './metric-encoding.ts'
import type { DeliveryQueue } from './retry-delivery.ts'

interface QueuedExport {
  /** Those that still wait. */
  readonly requests: EncodedRequest[]
}

export interface MetricQueue extends DeliveryQueue<EncodedRequest> {
  /** Appends an export, and returns how many points of older ones it pushed out. */
  push(requests: readonly EncodedRequest[]): number
}

export function createMetricQueue(bytesMax: number): MetricQueue {
  const queue: QueuedExport[] = []
  let points = 0
  let bytes = 0
  let inFlight = false

  const leave = (requests: readonly EncodedRequest[]): number => {
    let gone = 0
    for (const request of requests) {
      gone += request.points
      bytes -= request.bytes.length
    }
    points -= gone
    return gone
  }

  return {
    push: (requests) => {
      if (requests.length === 0) return 0
      queue.push({ requests: [...requests] })
      for (const request of requests) {
        points += request.points
        bytes += request.bytes.length
      }
      let gone = 0
      const first = inFlight ? 1 : 0
      while (bytes > bytesMax && queue.length > first + 1) {
        for (const { requests: oldest } of queue.splice(first, 1)) gone += leave(oldest)
      }
      return gone
    },
    take: () => {
      const head = queue[0]?.requests[0]
      if (head === undefined) throw new RangeError('no export waits')
      inFlight = true
      return head
    },
    settle: (leaves) => {
      inFlight = false
      const head = queue[0]
      if (!leaves || head === undefined) return
      leave(head.requests.splice(0, 1))
      if (head.requests.length === 0) queue.shift()
    },
    clear: () => {
      const held = points
      queue.length = 0
      points = 0
      bytes = 0
      inFlight = false
      return held
    },
    get items() {
      return points
    },
    get bytes() {
      return bytes
    },
  }
}
