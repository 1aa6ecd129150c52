/**
 * The verdict of a request: which rules its statistics break, and what is missing to say `ok`. Pure.
 *
 * `ok` needs every rule that is switched on to have all of its evidence, and a complete capture.
 * Taking evidence away can turn a verdict into `unknown`, never into `ok`. A missing or non-finite
 * value is no evidence. What a prompt and what an answer did to the model are judged apart: the mean
 * over both would hide a fault that begins while a request runs.
 */
import type { LearntBounds } from './baseline.ts'
import { type Bounds, boundsOf, onScale } from './baseline-bounds.ts'
import {
  type BaselineKind,
  type Completeness,
  type Finding,
  type Phase,
  type PhaseStatistics,
  type PhaseSummary,
  type Verdict,
  verdicts,
} from './records.ts'
import type { StatisticGroup } from './statistic-groups.ts'
import {
  type JudgedStatistic,
  judgedName,
  judgedStatistics,
  type VerdictRule,
  verdictLimits,
} from './verdict-rules.ts'

export interface PhaseEvidence extends PhaseStatistics {
  /** Tokens that the model processed in this phase. */
  readonly tokens: number
}

/** What is known of a request that has ended. */
export interface VerdictEvidence {
  /** The phases that its steps announced. */
  readonly phases: Readonly<Partial<Record<Phase, PhaseEvidence>>>
  /** Whether there is any statistic at all. */
  readonly measured: boolean
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
  if (rules.has('looping')) judgeLoops(evidence, settings, learnt, findings, missing)
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

/** Puts what a request's phases were next to what was measured in them. */
export function phaseEvidence(
  phases: readonly PhaseSummary[],
  statistics: Readonly<Partial<Record<Phase, PhaseStatistics>>>,
): VerdictEvidence['phases'] {
  const none: PhaseStatistics = { logitRows: 0, layerSeries: {}, globals: {} }
  return Object.fromEntries(
    phases.map(({ phase, tokenStart, tokenEnd }) => [
      phase,
      { ...none, ...statistics[phase], tokens: tokenEnd - tokenStart },
    ]),
  )
}

function judgeNonfinite(evidence: VerdictEvidence, findings: Finding[], missing: string[]): void {
  const { nonfinite, measured } = evidence
  if (nonfinite > 0) {
    findings.push({
      verdict: 'nonfinite',
      statistic: 'tensor.nonfinite',
      value: nonfinite,
      bound: 0,
      direction: 'above',
      layer: null,
    })
  } else if (!measured) missing.push('no tensor was measured')
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
  const value = decodedOf(evidence, 'final_logits.entropy_mean')
  const rows = evidence.phases.decode?.logitRows ?? 0
  if (generated < entropyTokensMin) {
    missing.push(`${tokensText(generated)}: entropy is judged from ${entropyTokensMin} on`)
  } else if (value === null || rows < entropyTokensMin) {
    missing.push(`final_logits: ${rows} of ${generated} generated tokens were measured`)
  } else {
    const judged = statisticOf('final_logits', 'entropy_mean')
    const found = outside(judged, value, { phase: 'decode', layer: -1 }, learnt)
    if (found !== null && rules.has(found.verdict)) findings.push(found)
  }
}

function judgeLoops(
  evidence: VerdictEvidence,
  { groups }: VerdictSettings,
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
  if (!groups.has('sequence')) {
    missing.push('token_ids: capture.statistics leaves out sequence, which loops are found by')
    return
  }
  const tracked = decodedOf(evidence, 'token_ids.tokens_tracked') ?? 0
  if (tracked !== generated) {
    missing.push(`token_ids: ${tracked} of ${generated} generated tokens were followed`)
  }
  // Too short for a loop by definition: that all tokens were followed is evidence enough.
  if (generated < loopTokensMin) return
  const period = decodedOf(evidence, 'token_ids.loop_period')
  const repetition = decodedOf(evidence, 'token_ids.repetition')
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
  const judged = statisticOf('token_ids', 'repetition')
  const found = outside(judged, repetition, { phase: 'decode', layer: -1 }, learnt)
  if (found === null) return
  const entropy = decodedOf(evidence, 'final_logits.entropy_mean')
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
  if (!knowsLayers(evidence)) {
    missing.push(`the MODEL record says ${evidence.layers} layers, fewer than it captures`)
  }
  const { tokens, promptTokens, phases } = evidence
  if (promptTokens > 0 && phases.prefill === undefined) missing.push('no prefill step was seen')
  if (tokens > promptTokens && phases.decode === undefined) missing.push('no decode step was seen')
  let judged = 0
  for (const statistic of judgedStatistics) {
    if ((statistic.below ?? statistic.above)?.rule !== 'collapsed') continue
    if (statistic.group !== null && !groups.has(statistic.group)) continue
    const results = statistic.phases
      .filter((phase) => isDue(evidence, statistic, phase))
      .map((phase) => judgePhase(evidence, statistic, phase, learnt))
    for (const result of results) judged += result.judged
    // One finding per statistic: what breaks in one layer shows in all that follow.
    const found = results.flatMap(({ worst }) => worst ?? [])
    const worst = found.sort((a, b) => b.distance - a.distance)[0]
    if (worst !== undefined) findings.push(worst.finding)
    missing.push(...absences(statistic, results))
  }
  if (judged === 0) {
    missing.push('neither the residual stream nor attention was measured for collapse')
  }
}

interface Found {
  readonly finding: Finding
  /** How far beyond its bound the value is. */
  readonly distance: number
}

interface PhaseResult {
  readonly phase: Phase
  /** The layer furthest out. */
  readonly worst: Found | null
  /** Layers that were looked at, and those of them without a value. */
  readonly judged: number
  readonly absent: readonly number[]
}

/** Whether the phase has tokens enough to say anything. */
function isDue({ phases }: VerdictEvidence, { tokensMin }: JudgedStatistic, phase: Phase) {
  return (phases[phase]?.tokens ?? 0) >= tokensMin[phase]
}

function absences(statistic: JudgedStatistic, results: readonly PhaseResult[]): string[] {
  const name = judgedName(statistic)
  if (statistic.needsLayerBefore === true) {
    const [first, ...others] = results.map(({ absent }) => absent)
    const nowhere = (first ?? []).filter((one) => others.every((other) => other.includes(one)))
    return nowhere.length === 0 ? [] : [`${name} has no value in ${layersText(nowhere.length)}`]
  }
  return results
    .filter(({ absent }) => absent.length > 0)
    .map(({ phase, absent }) => `${name} has no ${phase} value in ${layersText(absent.length)}`)
}

function judgePhase(
  evidence: VerdictEvidence,
  statistic: JudgedStatistic,
  phase: Phase,
  learnt: LearntBounds | null,
): PhaseResult {
  const measured = evidence.phases[phase]
  let worst: Found | null = null
  let judged = 0
  const absent: number[] = []
  for (const layer of expectedLayers(evidence, statistic)) {
    const place = { phase, layer }
    if (!isBounded(statistic, place, learnt)) continue
    const name = judgedName(statistic)
    const value = finite(layer < 0 ? measured?.globals[name] : measured?.layerSeries[name]?.[layer])
    judged += 1
    if (value === null) {
      absent.push(layer)
      continue
    }
    const finding = outside(statistic, value, place, learnt)
    if (finding === null) continue
    const distance = distanceOf(statistic, finding)
    if (worst === null || distance > worst.distance) worst = { finding, distance }
  }
  return { phase, worst, judged, absent }
}

/** Without the number of layers nobody knows which layer the last one is compared with. */
function knowsLayers({ capture, layers }: VerdictEvidence): boolean {
  return layers > Math.max(0, ...Object.values(capture).flat())
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

/** Where a value is of; layer −1 for a global hook. */
interface Place {
  readonly phase: Phase
  readonly layer: number
}

function boundsFor(
  statistic: JudgedStatistic,
  { phase, layer }: Place,
  learnt: LearntBounds | null,
): Bounds {
  const name = judgedName(statistic)
  const known = learnt?.phases[phase]
  const quantiles = layer < 0 ? known?.globals[name] : known?.layers[name]?.[layer]
  if (quantiles !== undefined && quantiles !== null) return boundsOf(quantiles, statistic)
  const covered = layer < 0 || layer >= (statistic.defaultsFromLayer ?? 0)
  if (!covered) return { low: null, high: null }
  return { low: statistic.below?.bound ?? null, high: statistic.above?.bound ?? null }
}

function isBounded(statistic: JudgedStatistic, place: Place, learnt: LearntBounds | null) {
  const { low, high } = boundsFor(statistic, place, learnt)
  return low !== null || high !== null
}

/** The rule that the value breaks, or null. */
function outside(
  statistic: JudgedStatistic,
  value: number,
  place: Place,
  learnt: LearntBounds | null,
): Finding | null {
  const { low, high } = boundsFor(statistic, place, learnt)
  const { phase, layer } = place
  const facts = { statistic: judgedName(statistic), value, layer: layer < 0 ? null : layer, phase }
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

/** A global value over the generated tokens alone. */
function decodedOf({ phases }: VerdictEvidence, name: string): number | null {
  return finite(phases.decode?.globals[name])
}

function finite(value: number | null | undefined): number | null {
  return value !== null && value !== undefined && Number.isFinite(value) ? value : null
}
