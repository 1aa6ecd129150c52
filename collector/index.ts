/** The collector's public names: all that the exporter may import. */

export {
  BASELINE_FORMAT,
  BASELINE_VERSION,
  type Baseline,
  type BaselineDocument,
  baselineLimits,
  identityOf,
  type LearntQuantiles,
  parseBaselines,
  sameIdentity,
} from './baseline.ts'
export { createLearner, type Learner, type Learnt, type LeftOut } from './baseline-learn.ts'
export { checkpointNames, readCheckpoint } from './checkpoint.ts'
export { checksums } from './checksums.ts'
export {
  codecBounds,
  dequantise,
  entropyBits,
  joinPlanes,
  lz4Decode,
  type Quantised,
  quantise,
  quantisedBytes,
  splitPlanes,
} from './codec.ts'
export {
  type CallerContext,
  placeInside,
  skewMicros,
  windowOf,
} from './contexts.ts'
export { type ContextCounts, type ContextJoin, createContextJoin } from './contexts-join.ts'
export { openDrain } from './drain.ts'
export type { SegmentDrain } from './drain-contract.ts'
export type { DrainEvent } from './drain-event.ts'
export { type ErrorCode, type ErrorFacts, Ring2Error } from './errors.ts'
export { createFoldBook, type FoldBook, OTHER_MODELS } from './folds.ts'
export { type Hook, hooks } from './hooks.gen.ts'
export { collectorLimits } from './limits.ts'
export { crc32c, nativeFacts } from './native.ts'
export { settleOrphans } from './orphans.ts'
export { type CapturePlan, type CapturePolicy, planCapture } from './policy.ts'
export { documentOf, type PolicyDocument, policyOf, readPolicy } from './policy-document.ts'
export { createRankJoin, type RankJoin } from './rank-join.ts'
export { compareRanks, isParallel, isReplica, isSharded, rankText } from './ranks.ts'
export type * from './records.ts'
export { completenessStates, contextFaults, traceOrigins, verdicts } from './records.ts'
export { createAttributeRedaction, withoutPayload } from './redaction.ts'
export {
  findSegments,
  type LossCount,
  producerName,
  readSegments,
  type SegmentInfo,
} from './segments.ts'
export { createSlices } from './slices.ts'
export { planGroups, type StatisticGroup, statisticGroups } from './statistic-groups.ts'
export {
  type JudgedStatistic,
  judgedStatistics,
  type VerdictRule,
  verdictRules,
} from './verdict-rules.ts'
export {
  type BaselineBook,
  type BaselineUnused,
  createVerdicts,
  noBaselines,
  type UnusedBaselines,
  type Verdicts,
} from './verdicts.ts'
export {
  addPattern,
  type Elements,
  type PatternCells,
  type PatternTile,
  patternCells,
  rowNorms,
  rowSoftmaxes,
  type SoftmaxFacts,
  type TopToken,
  type TopTokens,
  topTokens,
} from './views.ts'
