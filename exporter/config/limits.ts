/** Ranges of the configuration's values, and bounds on reading it. */
export const configLimits = {
  /** Bytes of a configuration file; a larger one is surely another file. */
  fileBytesMax: 1024 * 1024,
  /** Faults of a file that one error names. */
  faultsMax: 8,
  textCharactersMax: 4096,
  listEntriesMax: 64,
  /** One day. */
  secondsMax: 86_400,
  portMax: 65_535,
  /** 1 TiB. */
  bytesMax: 1024 ** 4,
  countMax: 10_000_000,
  batchRecordsMax: 1_048_576,
  /** A position of a token is a 32-bit number. */
  decodeEveryMax: 2 ** 31 - 1,
} as const
