/** Bounds of the drain worker and of the thread that watches it. */
export const pipelineLimits = {
  /** How often the directory of segments is read. */
  discoverMillis: 250,
  /** How often the spool is looked through for what killed processes left. */
  spoolMillis: 60_000,
  /** A folder of the spool that another process may write is its own until it is quiet for this long. */
  spoolQuietMillis: 600_000,
  /** A segment that could not be taken is tried again after this long. */
  refusedRetryMillis: 5000,
  /** Ended segments whose last counters are still reported, and for how long. */
  endedSegmentsMax: 64,
  endedSegmentMillis: 300_000,
  /** Requests whose late trace context waits to be written, and the pause after a failure. */
  movedRequestsMax: 10_000,
  movedRetryMillis: 1000,
  /** How often the worker hands out a snapshot on its own. */
  snapshotMillis: 1000,
  /** How long a caller waits for a fresh snapshot before it takes the last one. */
  snapshotWaitMillis: 2000,
  /** How long a stop may drain and flush. */
  stopMillis: 20_000,
} as const
