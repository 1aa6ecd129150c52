/**
 * Requests that ended lately, for the checkpoint: a crash may come between a request's end and the
 * moment its span has left the process, so the next exporter announces it again. Bounded by number
 * and age; what is older has long been sent, or waits for a Collector that is away.
 */
import { collectorLimits } from './limits.ts'
import type { RequestSummary } from './records.ts'

export interface RecentRequests {
  add(summary: RequestSummary): void
  list(): RequestSummary[]
}

export function createRecentRequests(now: () => number = () => performance.now()): RecentRequests {
  const entries: { readonly summary: RequestSummary; readonly atMillis: number }[] = []
  return {
    add(summary) {
      if (entries.length >= collectorLimits.checkpointEndedMax) entries.shift()
      entries.push({ summary, atMillis: now() })
    },
    list() {
      const oldest = now() - collectorLimits.checkpointEndedMillis
      return entries.filter(({ atMillis }) => atMillis >= oldest).map(({ summary }) => summary)
    },
  }
}
