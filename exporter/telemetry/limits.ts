/** Every bound of the telemetry side, each with its reason. */

const MIB = 1024 * 1024

/** Spans on their way to the Collector. The queue's bounds are configuration (`limits.span…`). */
export const spanLimits = {
  /** Spans and estimated bytes of one export; the receiving side takes 4 MiB by default. */
  batchSpansMax: 512,
  batchBytesMax: 1 * MIB,
  /** First pause after a failure; each further one is twice as long, up to the maximum. */
  retryMillisMin: 500,
  retryMillisMax: 30_000,
  /** Characters of an error that a log line shows. */
  errorCharactersMax: 400,
  /** Reasons listed on one event. */
  reasonsMax: 32,
  /** Longest text put on a span; a longer one is cut. */
  textCharactersMax: 4096,
  /** Request attributes of the caller that are put on the span. */
  requestAttributesMax: 32,
  /** The specification's default for attributes of one span. */
  attributesMax: 128,
} as const

/** Metrics on their way to the Collector. */
export const metricLimits = {
  /** Points of one export; a point with 160 buckets is some 500 bytes. */
  batchPointsMax: 2000,
  /** An export that takes longer is given up; the next one carries everything. */
  exportMillisMax: 10_000,
} as const

/** Shutdown. */
export const shutdownLimits = {
  /** Share of the time for spans; the rest is for metrics and for closing connections. */
  spanShare: 0.7,
} as const
