/** Every bound of the telemetry side, each with its reason. */

const MIB = 1024 * 1024

/** Spans on their way to the Collector. The queue's bounds are configuration (`limits.span…`). */
export const spanLimits = {
  /** Spans and estimated bytes of one export; the receiving side takes 4 MiB by default. */
  batchSpansMax: 2048,
  batchBytesMax: 1 * MIB,
  /** Findings that become events; a rule gives at most one per statistic. */
  findingsMax: 32,
  /** Reasons listed on one event. */
  reasonsMax: 32,
  /** Longest text put on a span; a longer one is cut. */
  textCharactersMax: 4096,
  /** Request attributes of the caller that are put on the span. */
  requestAttributesMax: 32,
  /** The specification's default for attributes of one span. */
  attributesMax: 128,
} as const

/** Metrics on their way to the Collector. The queue's bound is configuration (`limits.metric…`). */
export const metricLimits = {
  /** Points and bytes of one request; the receiving side takes 4 MiB by default. */
  requestPointsMax: 2000,
  requestBytesMax: 2 * MIB,
  /** Requests become smaller when the Collector finds them too large, but not below this. */
  requestBytesMin: 64 * 1024,
} as const

/** Tries, of spans and of metrics. */
export const deliveryLimits = {
  /** First pause after a failure; each further one is twice as long, up to the maximum. */
  retryMillisMin: 500,
  retryMillisMax: 30_000,
  /** Longest pause that a Collector may ask for. */
  retryInfoMillisMax: 300_000,
  /**
   * Tries of a batch that is answered by RESOURCE_EXHAUSTED without a word on when to come back:
   * some five minutes, in which a busy Collector recovers.
   */
  exhaustedTriesMax: 20,
  /** Characters of an error, or of a Collector's message, that a log line shows. */
  errorCharactersMax: 400,
} as const

/** Shutdown. */
export const shutdownLimits = {
  /** Share of the time for sending; the rest is for closing connections. */
  sendingShare: 0.7,
} as const
