/**
 * Where a signal of the exporter begins to matter: the objective, burn rates and bounds that dashboards
 * colour and alert rules compare with. Not the bounds that a request is judged by: those are learnt
 * from healthy traffic, because no fixed value of a statistic holds for every model.
 */

/** Share of valid requests that must be good. */
export const serviceLevelObjective = 0.99

export interface BurnRate {
  /** How many times faster than sustainable the error budget of 30 days is used up. */
  readonly factor: number
  readonly severity: 'page' | 'ticket'
  /** As PromQL writes durations. */
  readonly longWindow: string
  readonly shortWindow: string
}

/** Source: The Site Reliability Workbook, chapter 5, multiwindow multi-burn-rate alerts. */
export const burnRates = {
  fast: { factor: 14.4, severity: 'page', longWindow: '1h', shortWindow: '5m' },
  slow: { factor: 6, severity: 'page', longWindow: '6h', shortWindow: '30m' },
  long: { factor: 1, severity: 'ticket', longWindow: '3d', shortWindow: '6h' },
} as const satisfies Record<string, BurnRate>

/** Below these counts in the long window a share of bad requests says nothing. */
export const burnGuard = { badRequestsMin: 2, validRequestsMin: 5 } as const

export interface Threshold {
  readonly warning: number
  readonly critical: number
  readonly help: string
}

/** Levels from which on a value is drawn in another colour; alerts are raised at `critical`. */
export const thresholds = {
  ringOccupancy: {
    warning: 0.5,
    critical: 0.8,
    help: 'used bytes of a ring over its size',
  },
  lagSeconds: {
    warning: 10,
    critical: 30,
    help: 'age in seconds of the oldest record that is not yet released',
  },
  unknownShare: {
    warning: 0.02,
    critical: 0.1,
    help: 'share of ended requests whose verdict is unknown, over an hour',
  },
  incompleteShare: {
    warning: 0.01,
    critical: 0.05,
    help: 'share of ended requests that are incomplete, over an hour',
  },
  entropyVerdictShare: {
    warning: 0.01,
    critical: 0.05,
    help: 'share of valid requests with the verdict low_entropy or high_entropy, over an hour',
  },
  entropyDrift: {
    warning: 0.15,
    critical: 0.3,
    help: 'change of the median entropy of the logits over 6 hours against the day before, relative',
  },
  normDrift: {
    warning: 0.1,
    critical: 0.2,
    help: 'change of the median norm of the final hidden state over 6 hours against the day before, relative',
  },
  storeFailures: {
    warning: 1,
    critical: 3,
    help: 'failed writes to the store in 15 minutes',
  },
  uploadFailures: {
    warning: 1,
    critical: 3,
    help: 'failed uploads in 15 minutes, of one reason',
  },
  uploadQueue: {
    warning: 0.25,
    critical: 0.5,
    help: 'bytes that wait for their upload over `store.spool_bytes_max`',
  },
} as const satisfies Record<string, Threshold>
