/**
 * Groups of statistics beyond norms, moments, entropies and the sink's mass; each group costs time of
 * its own. The bits are ring2_group of native/include/ring2.h.
 */
import { constants } from './layout.gen.ts'

export const statisticGroups = {
  outliers: constants.groupOutliers,
  attention: constants.groupAttention,
  sequence: constants.groupSequence,
  layers: constants.groupLayers,
  representation: constants.groupRepresentation,
  router: constants.groupRouter,
  kv: constants.groupKv,
} as const

export type StatisticGroup = keyof typeof statisticGroups

/** ring2_group bits of the groups named. */
export function planGroups(groups: readonly (StatisticGroup | 'all')[]): number {
  if (groups.includes('all')) return constants.groupsAll
  return groups.reduce((bits, name) => bits | (name === 'all' ? 0 : statisticGroups[name]), 0)
}
