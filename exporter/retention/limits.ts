/** Bounds of deletion and retention. */

const MIB = 1024 * 1024

/** Deleting one trace. */
export const deletionLimits = {
  /** Payload bytes of one rewritten file: as much is in memory at once, unless one row is larger. */
  partBytesMax: 64 * MIB,
  /** Rows whose place is read at once. */
  rowsAtOnce: 65_536,
  /** How long a deletion waits for another one. */
  lockMillisMax: 10_000,
  /** How long it waits for what is still on its way into the store, and between two looks. */
  settleMillisMax: 10_000,
  settlePollMillis: 200,
  /** Files that the error of an unfinished deletion names. */
  filesNamedMax: 20,
  /** Bytes of a journal, checkpoint or description that is read. */
  stateBytesMax: 256 * MIB,
} as const

/** Copies into the store that a killed process has left. */
export const leftoverLimits = {
  /** Nothing has been written to it for so long: nobody writes it any more. */
  quietMillis: 600_000,
} as const

/** Passes of retention. */
export const retentionLimits = {
  /** Pause before the first pass, between two passes, and while there is more to remove. */
  firstMillis: 1000,
  passMillis: 300_000,
  busyMillis: 1000,
  /** Files removed in one pass. */
  passFilesMax: 500,
  /** Files that a running exporter removes in one pass, before others get a turn on its thread. */
  filesAtOnce: 100,
} as const
