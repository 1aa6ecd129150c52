/**
 * Every bound of the exporter: bytes, counts and milliseconds, each with its reason.
 *
 * A name ends in its unit and its qualifier (`rowGroupBytesMax`). Nothing here reads configuration:
 * a bound that users may change is the default of a configuration key, which names it.
 */

const KIB = 1024
const MIB = 1024 * KIB

/** What one Parquet file holds. A file is written once and never appended to. */
export const parquetLimits = {
  /** Payload bytes of a row group; readers skip or load a whole one. */
  rowGroupBytesMax: 64 * MIB,
  /** Rows of a row group, so that small tensors do not make its other columns large. */
  rowGroupRowsMax: 16_384,
  /** Payload bytes after which a page of the data column ends; a larger row is a page of its own. */
  dataPageBytes: 64 * KIB,
  /**
   * A page of any other column ends after the rows of so many payload bytes, within these bounds:
   * a request is few pages, and a reader that filters passes over the payloads of the others.
   */
  pageSpanBytes: 4 * MIB,
  pageRowsMin: 16,
  pageRowsMax: 1024,
  /** Rows of which all columns are taken before those of the next: their objects fit in a cache. */
  gatherRows: 256,
  /** Bytes kept of a text minimum or maximum: more than the ids that share a prefix. */
  statisticsTruncateBytes: 64,
  /** Payloads up to this are copied, as one more gather entry costs more than the copy. */
  gatherCopyBytesMax: 2 * KIB,
  /** Entries of one gathered write: IOV_MAX on Linux. */
  gatherEntriesMax: 1024,
  /**
   * Bytes that wait before a gathered write. Larger ones take larger pieces of the page cache, which
   * a virtual machine that gives free memory back to its host has to get again first.
   */
  gatherBytesMax: 1 * MIB,
  /** Size of one buffer of small bytes between payloads. */
  gatherChunkBytes: 64 * KIB,
  /** Payload bytes of one file; a larger flush becomes several files. */
  fileBytesMax: 1024 * MIB,
  /** Rows of one file: their tail, some 100 bytes a row, is read by one request (`tailBytesMax`). */
  fileRowsMax: 65_536,
} as const

/** Memory of rows that wait for a flush: some 200 bytes for each. */
export const pendingLimits = {
  rowsAtFirst: 1024,
  /** Room for so many is kept for the next rows; more is given back. */
  rowsKept: 65_536,
} as const

/** Codecs of stored rows (docs/codecs.md). */
export const codecLimits = {
  /** Elements that share a scale; smaller blocks hold the bound more locally and cost more. */
  blockElements: 64,
  /** A smaller row is stored as it is: the header and a call of zstd outweigh what it saves. */
  rowBytesMin: 256,
  /** A smaller plane is stored as it is. */
  planeBytesMin: 128,
  /** What coding each byte by itself must promise before zstd is tried. */
  savedBytesMin: 32,
  savedShareMin: 0.02,
  zstdLevel: 1,
  /** Least that Node takes as a chunk. */
  zstdChunkBytesMin: 64,
  /** Level 1 uses windows of at most 2^21; a frame that asks for more is not ours. */
  zstdWindowLogMax: 23,
  /** Memory for planes that is kept from row to row. */
  roomBytesMax: 64 * MIB,
} as const

/** Imports of captures of other tools. */
export const importLimits = {
  /** A payload as stored, and its content; larger ones are no tensors of one module. */
  packetBytesMax: 256 * MIB,
  /** A module's name. */
  nameBytesMax: 1024,
  modulesMax: 4096,
  /** What is read at once when padding is looked for. */
  chunkBytes: 1 * MIB,
  zstdWindowLogMax: 27,
  /** A file of token ids, and how many it may hold. */
  tokensFileBytesMax: 64 * MIB,
  tokensMax: 1 << 20,
  /** Attributes that name modules outside the catalogue. */
  moduleAttributesMax: 48,
  /** How long files may take into a bucket before the rest is left to a running exporter. */
  uploadMillisMax: 600_000,
} as const

/** Names in keys: `model_slug={slug}` and `{producer}-{ulid}`, and the flat names of the spool. */
export const keyLimits = {
  slugCharactersMax: 64,
  bootCharactersMax: 32,
  keyCharactersMax: 1024,
} as const

/** The upload queue in front of a bucket. */
export const uploadLimits = {
  /** A file that was removed from the queue this long ago is not being uploaded any more. */
  removedMillis: 600_000,
  /** Bytes that may wait on local disk before publishing asks the drain loop to wait. */
  queueBytesMax: 4096 * MIB,
  /** What a row, a summary or a flush is taken to add to its payload when room is looked for. */
  rowOverheadBytes: 4 * KIB,
  fileOverheadBytes: 24 * KIB,
  /** A file up to this is sent in one request; as much memory is used for each part in flight. */
  partBytes: 16 * MIB,
  partsInFlight: 4,
  filesInFlight: 2,
  retryMillisMin: 500,
  retryMillisMax: 60_000,
  pollMillis: 1000,
  /** A connection to the object store on which nothing moves, and one request in all. */
  idleMillisMax: 60_000,
  requestMillisMax: 300_000,
  connectMillisMax: 5_000,
} as const

/** The catalogue. */
export const catalogLimits = {
  /** How long one process waits while the other writes. */
  busyMillisMax: 10_000,
  /** A larger catalogue is made again in a thread of its own; a smaller one is done sooner. */
  compactHereBytesMax: 1 * MIB,
  /** How long a rebuild waits for a deletion before it replaces the contents. */
  rebuildLockMillisMax: 600_000,
  pageRowsDefault: 50,
  pageRowsMax: 500,
  /** Tensors (hook × layer × rank × file) listed of one trace. */
  seriesMax: 100_000,
  /** Requests listed of one trace. */
  traceRequestsMax: 10_000,
  /** Requests whose spans a start sends because an earlier one could not, and their greatest age. */
  unsentRequestsMax: 10_000,
  unsentMicrosMax: 86_400_000_000,
  /** Parts of one vocabulary, of at most 64 KiB each. */
  vocabularyPartsMax: 4096,
} as const

/** Trace indexes in a bucket. */
export const indexLimits = {
  /** Bytes of one index that is still read: some 100,000 series. */
  bytesMax: 32 * MIB,
  /** Indexes written, and read, at the same time. */
  dueAtOnce: 16,
  readsInFlight: 16,
  /** How often it is looked for indexes that are due. */
  pollMillis: 1000,
  /** How long a trace that was found is not looked for again, and how many such are remembered. */
  freshMillis: 5000,
  freshTracesMax: 1000,
} as const

/** Answers of the reader and the API. */
export const answerLimits = {
  /** Bytes of one stitched tensor. */
  tensorBytesMax: 256 * MIB,
  /** Payload bytes read for one answer; more than the answer when few tokens of a long row count. */
  sourceBytesMax: 1024 * MIB,
  /** Payload bytes read at once while stitching, unless one row is larger. */
  sourceChunkBytes: 4 * MIB,
  /** Bytes of an answer that are read and checked before its status is sent. */
  checkedFirstBytes: 1 * MIB,
  /** Memory of all tensors that are being sent. */
  bytesInFlightMax: 1024 * MIB,
  /** A client that takes nothing for so long is dropped. */
  stalledMillisMax: 120_000,
  /** Elements of a JSON answer: text is some ten times larger than the numbers. */
  jsonElementsMax: 2_000_000,
  /** Rows of `GET …/tensors`. */
  listRowsMax: 10_000,
  /** Footers kept in memory. */
  footersMax: 64,
  /** Bytes of one footer that is still read. */
  footerBytesMax: 64 * MIB,
  /** Bytes read from the end of a file whose tail is not known: mostly more than its footer. */
  footerFetchBytes: 64 * KIB,
  /** Bytes of a tail that is read whole, and of all tails kept in memory. */
  tailBytesMax: 8 * MIB,
  tailsBytesMax: 64 * MIB,
  /** Bytes between two ranges that are read for nothing, to save a request. */
  rangeGapBytesMax: 64 * KIB,
} as const

/** Vocabularies of models: the texts of token ids. */
export const vocabularyLimits = {
  /** Whose texts are kept in memory: some 20 MiB each. */
  openMax: 4,
} as const

/** What the explorer's views may cost. */
export const viewLimits = {
  /** Payload bytes read for one view. */
  sourceBytesMax: 1024 * MIB,
  /** Results kept while someone zooms. */
  cacheBytesMax: 256 * MIB,
  /** What a small result counts for in the cache. */
  entryBytes: 256,
  /** Cells of a row of norms. */
  columnsDefault: 512,
  columnsMax: 1024,
  /** Rows and columns of a tile of attention. */
  tileDefault: 256,
  tileMax: 512,
  /** Elements of one head's pattern in memory: 64 MiB of float32. */
  patternElementsMax: 4096 * 4096,
  /** Bytes of heads read at once for their mean. */
  headGroupBytesMax: 128 * MIB,
  /** Tokens of one page, and alternatives of one token. */
  tokensDefault: 512,
  tokensMax: 4096,
  alternativesDefault: 10,
  alternativesMax: 50,
  /** Bytes of logits read for one page of tokens, and at once. */
  logitsBytesMax: 512 * MIB,
  logitsChunkBytes: 32 * MIB,
} as const

/** The HTTP server. */
export const httpLimits = {
  bodyBytesMax: 1 * MIB,
  /** Spans that a Collector sends at once, as sent and unpacked. */
  tapBodyBytesMax: 16 * MIB,
  requestMillisMax: 120_000,
  /** As long as the longest request id. */
  parameterCharactersMax: 1024,
} as const

/** An orderly stop: how long each part of it may take. */
export const serviceLimits = {
  /** How often it is written down which requests' spans have been sent. */
  sentWriteMillis: 1000,
  /** Requests of an earlier start that are announced in one go. */
  unsentAtOnce: 100,
  stopUploadMillis: 30_000,
  stopTelemetryMillis: 10_000,
  /** How often the file of baselines is looked at. */
  baselinePollMillis: 1000,
} as const

/** Learning baselines. */
export const calibrateLimits = {
  /** Fewer requests than this can be asked for with --min-requests, down to `requestsMin`. */
  requestsDefault: 30,
  requestsMin: 2,
  /** Newest requests read at most: each takes some KiB of memory. */
  requestsMax: 20_000,
  pageRequests: 500,
} as const

/** What the proxy before a llama-server holds. */
export const llamaProxyLimits = {
  /** A request is read whole; images in a chat are its largest part. */
  bodyBytesMax: 64 * MIB,
  /** Slots of a server, as many as llama.cpp has sequences. */
  slotsMax: 256,
  /** How often a slot whose client has gone is looked at; one batch of a long prompt may take it. */
  idleLookMillis: 50,
} as const
