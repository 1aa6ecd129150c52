/** Reads what a drain call wrote: an array of ring2_slice in one buffer, one accessor for all. */
import { hooks } from './hooks.gen.ts'
import { constants, dtypes, slice as layout, statistics } from './layout.gen.ts'
import { collectorLimits } from './limits.ts'
import type { Phase, Ranks, SliceStatistics } from './records.ts'
import { type Words, words } from './words.ts'

const hookNames = new Map(hooks.map((hook) => [hook.id, hook.name]))

/** `l2_mean` → `l2Mean`, by ring2_stat. */
const statisticKeys = Array.from(statistics, ([id, name]): [number, keyof SliceStatistics] => [
  id,
  name.replaceAll(/_([a-z0-9])/g, (_, letter: string) =>
    letter.toUpperCase(),
  ) as keyof SliceStatistics,
])

export interface Slices {
  readonly bytes: Uint8Array
  readonly capacity: number
  kind(index: number): number
  position(index: number): number
  requestKey(index: number): number
  setRequestKey(index: number, key: number): void
  step(index: number): number
  hookId(index: number): number
  hook(index: number): string
  layer(index: number): number
  dtype(index: number): string
  phase(index: number): Phase
  tokenStart(index: number): number
  tokenEnd(index: number): number
  kvOffset(index: number): number
  /** Neighbours mostly have one shape and one place: they share what says so. */
  shape(index: number): readonly number[]
  ranks(index: number): Ranks
  capturedAtMicros(index: number): number
  payloadOffset(index: number): number
  payloadBytes(index: number): number
  isContiguous(index: number): boolean
  isUnattributed(index: number): boolean
  /** Of a step beside the forward's own, which nobody counts on. */
  isExtra(index: number): boolean
  action(index: number): number
  setAction(index: number, action: number): void
  /** Which statistics are wanted, as ring2_group bits. */
  setGroups(index: number, groups: number): void
  /** Tokens of the request's prompt; −1 when not known. */
  setPromptTokens(index: number, tokens: number): void
  crc32c(index: number): number
  elements(index: number): number
  nan(index: number): number
  posInf(index: number): number
  negInf(index: number): number
  statistics(index: number): SliceStatistics
  /** The bytes of one ring2_slice, to hand back to native code. */
  record(index: number): Uint8Array
}

export function createSlices(capacity: number): Slices {
  const bytes = new Uint8Array(capacity * layout.bytes)
  const all: Words = words(bytes)
  const at = (index: number, field: number): number => index * layout.bytes + field
  let shape: readonly number[] = []
  let ranks: Ranks = { tp: 0, pp: 0, dp: 0, ep: 0 }
  return {
    bytes,
    capacity,
    kind: (i) => all.u32(at(i, layout.kind)),
    position: (i) => all.u64(at(i, layout.position)),
    requestKey: (i) => all.u64(at(i, layout.requestKey)),
    setRequestKey: (i, key) => all.setU64(at(i, layout.requestKey), key),
    step: (i) => all.i64(at(i, layout.step)),
    hookId: (i) => all.u32(at(i, layout.hook)),
    hook: (i) => hookNames.get(all.u32(at(i, layout.hook))) ?? '',
    layer: (i) => all.i32(at(i, layout.layer)),
    dtype: (i) => dtypes.get(all.u32(at(i, layout.dtype))) ?? '',
    phase: (i) => (all.u32(at(i, layout.phase)) === constants.phasePrefill ? 'prefill' : 'decode'),
    tokenStart: (i) => all.i32(at(i, layout.tokenStart)),
    tokenEnd: (i) => all.i32(at(i, layout.tokenEnd)),
    kvOffset: (i) => all.i32(at(i, layout.kvOffset)),
    shape(i) {
      const axes = all.u32(at(i, layout.ndim))
      let same = axes === shape.length
      for (let axis = 0; same && axis < axes; axis++) {
        same = all.u32(at(i, layout.dims + axis * 4)) === shape[axis]
      }
      if (!same) {
        shape = Array.from({ length: axes }, (_, axis) => all.u32(at(i, layout.dims + axis * 4)))
      }
      return shape
    },
    ranks(i) {
      const tp = all.u16(at(i, layout.tpRank))
      const pp = all.u16(at(i, layout.ppRank))
      const dp = all.u16(at(i, layout.dpRank))
      const ep = all.u16(at(i, layout.epRank))
      if (ranks.tp !== tp || ranks.pp !== pp || ranks.dp !== dp || ranks.ep !== ep) {
        ranks = { tp, pp, dp, ep }
      }
      return ranks
    },
    capturedAtMicros: (i) => all.micros(at(i, layout.capturedRealtimeNs)),
    payloadOffset: (i) => all.u64(at(i, layout.payloadOffset)),
    payloadBytes: (i) => all.u64(at(i, layout.payloadBytes)),
    isContiguous: (i) => (all.u32(at(i, layout.flags)) & constants.sliceContiguous) !== 0,
    isUnattributed: (i) => (all.u32(at(i, layout.flags)) & constants.sliceUnattributed) !== 0,
    isExtra: (i) => (all.u32(at(i, layout.flags)) & constants.sliceExtra) !== 0,
    action: (i) => all.u32(at(i, layout.action)),
    setAction: (i, action) => all.setU32(at(i, layout.action), action),
    setGroups: (i, groups) => all.setU32(at(i, layout.groups), groups),
    setPromptTokens: (i, tokens) => all.setU32(at(i, layout.promptTokens), tokens >>> 0),
    crc32c: (i) => all.u32(at(i, layout.crc32c)),
    elements: (i) => all.u64(at(i, layout.elements)),
    nan: (i) => all.u64(at(i, layout.nanCount)),
    posInf: (i) => all.u64(at(i, layout.posInfCount)),
    negInf: (i) => all.u64(at(i, layout.negInfCount)),
    statistics: (i) => readStatistics(all, at(i, 0)),
    record: (i) => bytes.subarray(at(i, 0), at(i + 1, 0)),
  }
}

type StatisticPlace = (typeof statisticKeys)[number]

/** The statistics of each set that came, by the two words of `defined`: there are few such sets. */
const definedPlaces = new Map<number, Map<number, readonly StatisticPlace[]>>()

function placesOf(low: number, high: number): readonly StatisticPlace[] {
  const byLow = definedPlaces.get(high) ?? new Map<number, readonly StatisticPlace[]>()
  const known = byLow.get(low)
  if (known !== undefined) return known
  const places = statisticKeys.filter(
    ([index]) => ((index < 32 ? low : high) & (1 << (index & 31))) !== 0,
  )
  if (byLow.size < collectorLimits.statisticSetsMax) {
    definedPlaces.set(high, byLow.set(low, places))
  }
  return places
}

function readStatistics(all: Words, base: number): SliceStatistics {
  const places = placesOf(all.u32(base + layout.defined), all.u32(base + layout.defined + 4))
  const values: Partial<Record<keyof SliceStatistics, number>> = {}
  for (const [index, key] of places) values[key] = all.f64(base + layout.stats + index * 8)
  return values
}
