/**
 * Every bound of the collector. A bound that belongs to the shared-memory layout is in layout.gen.ts.
 */

export const collectorLimits = {
  /** Segments drained at once by one exporter. */
  segmentsMax: 64,
  /** Models that are folded apart; each may hold 16,384 series of 1.4 KiB. Later ones share a fold. */
  modelsMax: 32,
  /** Records of one vocabulary: 64 KiB each, so some 256 MiB of texts. */
  vocabularyPartsMax: 4096,
  /** Requests kept within one batch, as a multiple of the configured bound. */
  requestsOvershoot: 2,
  /** Ended requests whose trace id an exemplar may still name. */
  exemplarRequestsMax: 16_384,
  /** Steps kept in a checkpoint, for tensors that come after a restart; as many as native code keeps. */
  checkpointStepsMax: 256,
  /** Changes of the policy that a segment's steps are still judged by; older ones are unknown. */
  controlsMax: 64,
  /** Token ranges of a request that are listed; beyond it they are only counted. */
  keptRangesMax: 64,
  /** Ids of trace contexts kept for requests that have not come yet, their bytes, and for how long. */
  contextsMax: 16_384,
  contextBytesMax: 64 * 1024 * 1024,
  contextMillis: 600_000,
  /** Contexts kept of one request id: the client's span, the engine's, and an id used again. */
  contextsPerIdMax: 4,
  /** Ended requests that wait for their context; the oldest goes on without when there are more. */
  contextWaitingMax: 2048,
  /** Requests sent without a context that are sent again when it comes, and for how long. */
  contextLateMax: 512,
  contextLateMillis: 600_000,
  /** Further outside its parent's span than this, a request's clock counts as another one. */
  clockSkewMicros: 50_000,
  /** Pairs of model and reason that are counted when no baseline could be used. */
  unusedBaselinesMax: 256,
  /** Reasons a completeness verdict lists. */
  reasonsMax: 16,
  /** Ranks along one axis of a parallel model. */
  ranksMax: 4096,
  /** How long the parts of a request that have ended wait for ranks nobody has heard of. */
  rankWaitMillis: 10_000,
  /** Requests of parallel models that are remembered, so that a part that comes late is known. */
  rankRequestsMax: 16_384,
  /** Attributes of one request, and characters of one of their values. */
  requestAttributesMax: 64,
  attributeCharactersMax: 1024,
  /** A `tracestate` that is longer is left out: what W3C Trace Context asks to be passed on. */
  traceStateCharactersMax: 512,
  /** A request that says it began further than this from its own record began with the record. */
  requestStartMicrosMax: 86_400_000_000,
  /** Sets of statistics remembered, so that reading a slice does not look for each one. */
  statisticSetsMax: 4096,
  /** Share of a ring that may wait for a flush before one is forced. */
  flushOccupancy: 0.25,
  /** Wait before a failed flush is tried again. */
  flushRetryMillis: 500,
} as const
