/**
 * Whether everything that was captured of a request has arrived. Pure.
 *
 * The model says which hooks and layers its producer captures, and the steps say how often; the rest
 * is counting. What cannot be known is `unknown`, never `complete`.
 */
import { collectorLimits } from './limits.ts'
import type { Completeness, ModelInfo } from './records.ts'

export interface Evidence {
  readonly model: ModelInfo
  /** Steps of the request whose STEP record came. */
  readonly steps: number
  /** Steps the producer says there were; null when it never said. */
  readonly stepsAnnounced: number | null
  readonly seen: ReadonlyMap<string, ReadonlyMap<number, number>>
  /** Hooks that were switched off: nobody expects them. */
  readonly unwanted: ReadonlySet<string>
  /** What the producer said it lost meanwhile, in words: it may concern other requests. */
  readonly losses: readonly string[]
  /** Why nothing can be said for certain, in words: token ranges that no step covered, … */
  readonly doubts: readonly string[]
}

export function judgeCompleteness(evidence: Evidence): Completeness {
  const { model, steps, seen } = evidence
  const missing: string[] = []
  const doubts = [...evidence.doubts]
  let expected = 0
  let present = 0
  for (const [hook, layers] of Object.entries(model.hooks)) {
    if (evidence.unwanted.has(hook)) continue
    const wanted = steps * layers.length
    let came = 0
    for (const layer of layers) came += Math.min(seen.get(hook)?.get(layer) ?? 0, steps)
    expected += wanted
    present += came
    if (came < wanted) missing.push(`${hook}: ${wanted - came} of ${wanted} records missing`)
  }
  if (Object.keys(model.hooks).length === 0) doubts.push('the MODEL record never came')
  if (evidence.stepsAnnounced === null) doubts.push('the producer never said how many steps it ran')
  else if (evidence.stepsAnnounced > steps) {
    missing.push(`${evidence.stepsAnnounced - steps} of ${evidence.stepsAnnounced} steps missing`)
  }
  const lost = missing.length > 0
  const reasons = lost ? [...missing, ...evidence.losses, ...doubts] : doubts
  return {
    state: lost ? 'incomplete' : doubts.length > 0 ? 'unknown' : 'complete',
    expected,
    seen: present,
    reasons: reasons.slice(0, collectorLimits.reasonsMax),
  }
}
