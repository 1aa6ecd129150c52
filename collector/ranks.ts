/**
 * Parallel ranks of one model: which process holds which share, and which must be there.
 *
 * A request runs in every tensor- and pipeline-parallel rank of one replica, so these two axes make
 * the set that its parts come from. A data-parallel rank is another replica, which has requests of its
 * own; experts lie on ranks that are counted already.
 */
import { hooks } from './hooks.gen.ts'
import type { ModelInfo, Ranks } from './records.ts'

export const noRanks: Ranks = { tp: 0, pp: 0, dp: 0, ep: 0 }

const headed = new Map(hooks.map((hook) => [hook.name, hook]))

/** Whether several processes run one request of the model. */
export function isParallel(model: ModelInfo): boolean {
  const { world } = model
  return world !== undefined && world.tp * world.pp > 1
}

/** `tp:1`, `pp:0`, `tp:1,pp:0`: the axes that tell the ranks of one request apart. */
export function rankText(ranks: Ranks = noRanks): string {
  return `tp:${ranks.tp},pp:${ranks.pp}`
}

/** Stages first, then shards: the order in which parts are told. */
export function compareRanks(left: Ranks = noRanks, right: Ranks = noRanks): number {
  return left.pp - right.pp || left.tp - right.tp
}

/** Texts of the ranks of `model`'s world that none of these models is of. */
export function missingRanks(model: ModelInfo, present: readonly ModelInfo[]): string[] {
  const { tp, pp } = model.world ?? { tp: 1, pp: 1 }
  const held = new Set(present.map(({ ranks }) => rankText(ranks)))
  const all = Array.from({ length: tp * pp }, (_, index) => ({
    ...noRanks,
    tp: index % tp,
    pp: Math.floor(index / tp),
  }))
  return all.map(rankText).filter((text) => !held.has(text))
}

/** Whether every tensor-parallel rank holds a share of the hook of its own. */
export function isSharded(hook: string): boolean {
  return headed.get(hook)?.sharded ?? false
}

/**
 * Whether a rank's key and value heads are copies of those of the rank before: with fewer of them than
 * ranks, each is held by several, which follow one another.
 */
export function isReplica(hook: string, tp: number, world: number, kvHeads: number): boolean {
  const replicated = headed.get(hook)?.dims.includes('kv_heads') ?? false
  if (!replicated || kvHeads <= 0 || kvHeads >= world) return false
  return tp % Math.ceil(world / kvHeads) !== 0
}
