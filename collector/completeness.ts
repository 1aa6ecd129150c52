/**
 * Whether everything that was wanted of a request has arrived. Pure.
 *
 * The model says which hooks and layers its producer captures, the steps say how often and under which
 * policy; the rest is counting. What cannot be known is `unknown`, never `complete`; what was wanted
 * in part is `sampled`, and says which tokens are kept.
 */
import type { Expectation, Wants } from './control-book.ts'
import { collectorLimits } from './limits.ts'
import { isSharded } from './ranks.ts'
import type { Completeness, ModelInfo, TokenRange } from './records.ts'

/** Steps that were captured by one policy. */
export type CapturedSteps = readonly [sequence: number, steps: number]

export interface Evidence {
  readonly model: ModelInfo
  /** Steps of the request whose STEP record came, by the sequence of their control words. */
  readonly captured: readonly CapturedSteps[]
  /** Steps the producer says there were; null when it never said. */
  readonly stepsAnnounced: number | null
  /** Steps that nobody wanted, so that they never came. */
  readonly stepsLeftOut: number
  readonly seen: ReadonlyMap<string, ReadonlyMap<number, number>>
  readonly expected: Expectation
  /** Tokens of the steps that came. */
  readonly kept: readonly TokenRange[]
  /** What the producer said it lost meanwhile, in words: it may concern other requests. */
  readonly losses: readonly string[]
  /** Why nothing can be said for certain, in words: token ranges that no step covered, … */
  readonly doubts: readonly string[]
}

export function judgeCompleteness(evidence: Evidence): Completeness {
  const { model, captured, seen, kept, stepsAnnounced, stepsLeftOut } = evidence
  const steps = captured.reduce((sum, [, count]) => sum + count, 0)
  const known = wantedSteps(captured, evidence.expected)
  const missing: string[] = []
  const doubts = [...evidence.doubts]
  const sampled: string[] = []
  let expected = 0
  let present = 0
  for (const [hook, layers] of Object.entries(model.hooks)) {
    // Of a hook that is computed for some queries only, no step owes a record.
    if (model.computed?.includes(hook) === true && !seen.has(hook)) {
      if (evidence.losses.length > 0) doubts.push(`${hook}: samples may be missing`)
      continue
    }
    const copies = isSharded(hook) ? (model.shards ?? 1) : 1
    const due = layers.map((layer) => copies * stepsWanting(known, hook, layer))
    const wanted = due.reduce((sum, count) => sum + count, 0)
    let came = 0
    for (const [index, layer] of layers.entries()) {
      came += Math.min(seen.get(hook)?.get(layer) ?? 0, due[index] ?? 0)
    }
    expected += wanted
    present += came
    if (came < wanted) missing.push(`${hook}: ${wanted - came} of ${wanted} records missing`)
    const most = Math.max(0, ...due) / copies
    if (most > 0 && due.some((count) => count > 0 && count < copies * steps)) {
      sampled.push(`${hook}: wanted in ${most} of ${steps} steps`)
    }
  }
  if (Object.keys(model.hooks).length === 0) doubts.push('the MODEL record never came')
  const knownSteps = known.reduce((sum, [, count]) => sum + count, 0)
  if (knownSteps < steps) {
    doubts.push(`${steps - knownSteps} of ${steps} steps were captured by a policy not known here`)
  }
  if (stepsAnnounced === null) doubts.push('the producer never said how many steps it ran')
  else if (stepsAnnounced > steps) {
    missing.push(`${stepsAnnounced - steps} of ${stepsAnnounced} steps missing`)
  }
  if (stepsLeftOut > 0)
    sampled.unshift(`tokens ${rangesText(kept)} are kept, others were not wanted`)
  return {
    ...verdictOf(evidence, missing, doubts, sampled),
    expected,
    seen: present,
    ...(stepsLeftOut > 0 ? { kept } : {}),
  }
}

function verdictOf(
  { losses }: Evidence,
  missing: readonly string[],
  doubts: readonly string[],
  sampled: readonly string[],
): Pick<Completeness, 'state' | 'reasons'> {
  const reasons = (list: readonly string[]) => list.slice(0, collectorLimits.reasonsMax)
  if (missing.length > 0) {
    return { state: 'incomplete', reasons: reasons([...missing, ...losses, ...doubts, ...sampled]) }
  }
  if (doubts.length > 0) return { state: 'unknown', reasons: reasons([...doubts, ...sampled]) }
  return { state: sampled.length > 0 ? 'sampled' : 'complete', reasons: reasons(sampled) }
}

function wantedSteps(
  captured: readonly CapturedSteps[],
  expected: Expectation,
): readonly (readonly [Wants, number])[] {
  return captured.flatMap(([sequence, steps]) => {
    const wants = expected.wantsOf(sequence)
    return wants === null ? [] : [[wants, steps] as const]
  })
}

function stepsWanting(
  known: readonly (readonly [Wants, number])[],
  hook: string,
  layer: number,
): number {
  return known.reduce((sum, [wants, steps]) => sum + (wants(hook, layer) ? steps : 0), 0)
}

function rangesText(ranges: readonly TokenRange[]): string {
  const shown = ranges.slice(0, 8).map(([start, end]) => `${start}:${end}`)
  return shown.join(', ') + (ranges.length > shown.length ? ', …' : '')
}
