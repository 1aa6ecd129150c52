/**
 * The verdict of a request: which rules its statistics break, and what is missing to say `ok`. Pure.
 *
 * `ok` needs every rule that is switched on to have all of its evidence, and a complete capture.
 * Taking evidence away can turn a verdict into `unknown`, never into `ok`. A missing or non-finite
 * value is no evidence.
 */
import type { LearntBounds } from './baseline.ts'
import { type Bounds, boundsOf, onScale } from './baseline-bounds.ts'
import {
  type BaselineKind,
  type Completeness,
  type Finding,
  type Verdict,
  verdicts,
} from './records.ts'
import type { StatisticGroup } from './statistic-groups.ts'
import {
  type JudgedStatistic,
  judgedStatistics,
  type VerdictRule,
  verdictLimits,
} from './verdict-rules.ts'

/** What is known of a request that has ended. */
export interface VerdictEvidence {
  readonly layerSeries: Readonly<Record<string, readonly (number | null)[]>>
  readonly globals: Readonly<Record<string, number>>
  /** NaN and infinite elements, less those that mean a masked one. */
  readonly nonfinite: number
  readonly completeness: Completeness
  readonly tokens: number
  readonly promptTokens: number
  /** Hook → layers that are captured and measured; `[-1]` for a global hook. */
  readonly capture: Readonly<Record<string, readonly number[]>>
  /** Layers of the model. */
  readonly layers: number
}

/** How requests are judged. */
export interface VerdictSettings {
  readonly rules: ReadonlySet<VerdictRule>
  /** Groups of statistics that are computed. */
  readonly groups: ReadonlySet<StatisticGroup>
}

export interface Judgement {
  readonly verdict: Verdict
  readonly findings: readonly Finding[]
  readonly missingEvidence: readonly string[]
  readonly baseline: BaselineKind
}

/**
 * @param learnt what was learnt of the request's model; null where the built-in bounds are used.
 * @param fault why the baselines cannot be trusted to be absent, in words; null when they can.
 */
export function judge(
  evidence: VerdictEvidence,
  settings: VerdictSettings,
  learnt: LearntBounds | null,
  fault: string | null,
): Judgement {
  const { rules } = settings
  const findings: Finding[] = []
  const missing: string[] = []
  if (evidence.completeness.state !== 'complete') {
    missing.push(`the capture is ${evidence.completeness.state}`)
  }
  if (rules.has('nonfinite')) judgeNonfinite(evidence, findings, missing)
  if (rules.has('collapsed')) judgeStructure(evidence, settings, learnt, findings, missing)
  if (rules.has('looping')) judgeLoops(evidence, learnt, findings, missing)
  if (rules.has('low_entropy') || rules.has('high_entropy')) {
    judgeEntropy(evidence, rules, learnt, findings, missing)
  }
  if (rules.size === 0) missing.push('every rule is switched off')
  if (fault !== null) missing.push(fault.slice(0, verdictLimits.reasonCharactersMax))
  findings.sort((a, b) => verdicts.indexOf(a.verdict) - verdicts.indexOf(b.verdict))
  const worst = findings[0]?.verdict
  return {
    verdict: worst ?? (missing.length > 0 ? 'unknown' : 'ok'),
    findings,
    missingEvidence: missing,
    baseline: learnt === null ? 'default' : 'calibrated',
  }
}

function judgeNonfinite(evidence: VerdictEvidence, findings: Finding[], missing: string[]): void {
  const { nonfinite, globals, layerSeries } = evidence
  if (nonfinite > 0) {
    findings.push({
      verdict: 'nonfinite',
      statistic: 'tensor.nonfinite',
      value: nonfinite,
      bound: 0,
      direction: 'above',
      layer: null,
    })
  } else if (Object.keys(globals).length + Object.keys(layerSeries).length === 0) {
    missing.push('no tensor was measured')
  }
}

function judgeEntropy(
  evidence: VerdictEvidence,
  rules: ReadonlySet<VerdictRule>,
  learnt: LearntBounds | null,
  findings: Finding[],
  missing: string[],
): void {
  const { entropyTokensMin } = verdictLimits
  const generated = generatedTokens(evidence)
  const value = globalOf(evidence, 'final_logits.entropy_mean')
  if (generated < entropyTokensMin) {
    missing.push(`${tokensText(generated)}: entropy is judged from ${entropyTokensMin} on`)
  } else if (value === null) missing.push('final_logits.entropy_mean has no value')
  else {
    const found = outside(statisticOf('final_logits', 'entropy_mean'), value, -1, learnt)
    if (found !== null && rules.has(found.verdict)) findings.push(found)
  }
}

function judgeLoops(
  evidence: VerdictEvidence,
  learnt: LearntBounds | null,
  findings: Finding[],
  missing: string[],
): void {
  const { loopTokensMin, loopRepetitionMin, loopEntropyMax } = verdictLimits
  const generated = generatedTokens(evidence)
  if (generated < 1) {
    missing.push('no generated token was processed: there is nothing to find loops in')
    return
  }
  const tracked = globalOf(evidence, 'token_ids.tokens_tracked') ?? 0
  if (tracked !== generated) {
    missing.push(`token_ids: ${tracked} of ${generated} generated tokens were followed`)
  }
  // Too short for a loop by definition: that all tokens were followed is evidence enough.
  if (generated < loopTokensMin) return
  const period = globalOf(evidence, 'token_ids.loop_period')
  const repetition = globalOf(evidence, 'token_ids.repetition')
  if (period === null) missing.push('token_ids.loop_period has no value')
  if (repetition === null) missing.push('token_ids.repetition has no value')
  if (repetition === null) return
  if (period !== null && period > 0 && repetition >= loopRepetitionMin) {
    const bound = 0
    const direction = 'above'
    const statistic = 'token_ids.loop_period'
    findings.push({ verdict: 'looping', statistic, value: period, bound, direction, layer: null })
    return
  }
  const found = outside(statisticOf('token_ids', 'repetition'), repetition, -1, learnt)
  if (found === null) return
  const entropy = globalOf(evidence, 'final_logits.entropy_mean')
  if (entropy === null) missing.push('repetition is judged with final_logits.entropy_mean only')
  else if (entropy <= loopEntropyMax) findings.push(found)
}

function judgeStructure(
  evidence: VerdictEvidence,
  { groups }: VerdictSettings,
  learnt: LearntBounds | null,
  findings: Finding[],
  missing: string[],
): void {
  let judged = 0
  for (const judgedStatistic of judgedStatistics) {
    const { hook, statistic, group } = judgedStatistic
    if ((judgedStatistic.below ?? judgedStatistic.above)?.rule !== 'collapsed') continue
    if (group !== null && !groups.has(group)) continue
    let worst: { finding: Finding; distance: number } | null = null
    let absent = 0
    for (const layer of expectedLayers(evidence, judgedStatistic)) {
      if (!isBounded(judgedStatistic, layer, learnt)) continue
      const value =
        layer < 0
          ? globalOf(evidence, `${hook}.${statistic}`)
          : finite(evidence.layerSeries[`${hook}.${statistic}`]?.[layer])
      judged += 1
      if (value === null) {
        absent += 1
        continue
      }
      const finding = outside(judgedStatistic, value, layer, learnt)
      if (finding === null) continue
      const distance = distanceOf(judgedStatistic, finding)
      if (worst === null || distance > worst.distance) worst = { finding, distance }
    }
    // One finding per statistic: what breaks in one layer shows in all that follow.
    if (worst !== null) findings.push(worst.finding)
    if (absent > 0) missing.push(`${hook}.${statistic} has no value in ${layersText(absent)}`)
  }
  if (judged === 0) {
    missing.push('neither the residual stream nor attention was measured for collapse')
  }
}

/** Layers of a hook that must have a value of the statistic. */
function expectedLayers(evidence: VerdictEvidence, statistic: JudgedStatistic): number[] {
  const { capture, layers } = evidence
  const { fromLayer = 0 } = statistic
  const captured = (capture[statistic.hook] ?? []).filter(
    (layer) => layer < 0 || layer >= fromLayer,
  )
  if (statistic.needsLayerBefore !== true) return captured
  const stream = capture.resid_pre ?? []
  return captured.filter((layer) => stream.includes(layer < 0 ? layers - 1 : layer - 1))
}

function boundsFor(statistic: JudgedStatistic, layer: number, learnt: LearntBounds | null): Bounds {
  const name = `${statistic.hook}.${statistic.statistic}`
  const quantiles = layer < 0 ? learnt?.globals[name] : learnt?.layers[name]?.[layer]
  if (quantiles !== undefined && quantiles !== null) return boundsOf(quantiles, statistic)
  const covered = layer < 0 || layer >= (statistic.defaultsFromLayer ?? 0)
  if (!covered) return { low: null, high: null }
  return { low: statistic.below?.bound ?? null, high: statistic.above?.bound ?? null }
}

function isBounded(statistic: JudgedStatistic, layer: number, learnt: LearntBounds | null) {
  const { low, high } = boundsFor(statistic, layer, learnt)
  return low !== null || high !== null
}

/** The rule that the value breaks, or null. */
function outside(
  statistic: JudgedStatistic,
  value: number,
  layer: number,
  learnt: LearntBounds | null,
): Finding | null {
  const { low, high } = boundsFor(statistic, layer, learnt)
  const facts = {
    statistic: `${statistic.hook}.${statistic.statistic}`,
    value,
    layer: layer < 0 ? null : layer,
  }
  if (statistic.below !== null && low !== null && value < low) {
    return { ...facts, verdict: statistic.below.rule, bound: low, direction: 'below' }
  }
  if (statistic.above !== null && high !== null && value > high) {
    return { ...facts, verdict: statistic.above.rule, bound: high, direction: 'above' }
  }
  return null
}

/** How far beyond its bound a value is, as a ratio: what tells the worst layer. */
function distanceOf(statistic: JudgedStatistic, { value, bound, direction }: Finding): number {
  const scale = (direction === 'above' ? statistic.above : statistic.below)?.scale ?? 'linear'
  return Math.abs(onScale(value, scale) - onScale(bound, scale))
}

function statisticOf(hook: string, statistic: string): JudgedStatistic {
  const found = judgedStatistics.find((one) => one.hook === hook && one.statistic === statistic)
  if (found === undefined) throw new Error(`no rule reads ${hook}.${statistic}`)
  return found
}

/** Generated tokens that the model went on from; the last one it gave is never an input. */
function generatedTokens({ tokens, promptTokens }: VerdictEvidence): number {
  return Math.max(0, tokens - promptTokens)
}

function tokensText(generated: number): string {
  return `${generated} generated ${generated === 1 ? 'token was' : 'tokens were'} processed`
}

function layersText(count: number): string {
  return count === 1 ? 'one layer' : `${count} layers`
}

function globalOf(evidence: VerdictEvidence, name: string): number | null {
  return finite(evidence.globals[name])
}

function finite(value: number | null | undefined): number | null {
  return value !== null && value !== undefined && Number.isFinite(value) ? value : null
}
