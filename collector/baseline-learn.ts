/**
 * Learns baselines from the summaries of requests that were healthy. Pure.
 *
 * Left out are requests that say nothing about health: open ones, those whose capture is not
 * complete, those with NaN or infinities, those of older stores without values per phase, and, unless
 * told otherwise, those that were found broken when they ended. Only
 * statistics that a rule reads are learnt, each from the requests that the rule would judge.
 */
import {
  type Baseline,
  hasBounds,
  identityOf,
  type LearntBounds,
  type LearntQuantiles,
  type PhaseBounds,
} from './baseline.ts'
import { learnQuantiles } from './baseline-bounds.ts'
import type { ModelInfo, Phase, RequestSummary } from './records.ts'
import { type StatisticGroup, statisticGroups } from './statistic-groups.ts'
import { judge, phaseEvidence, type VerdictEvidence } from './verdict.ts'
import {
  type JudgedStatistic,
  judgedName,
  judgedStatistics,
  verdictLimits,
  verdictRules,
} from './verdict-rules.ts'

export type LeftOut = 'nonfinite' | 'broken' | 'incomplete' | 'unknown_model' | 'without_phases'

/** What one model's requests gave. */
export interface Learnt {
  readonly model: ModelInfo
  readonly requests: number
  /** Null with fewer requests than are needed, or nothing in them that is judged. */
  readonly baseline: Baseline | null
  /** `<phase> <hook>.<statistic>` → requests learnt from that would be findings by this baseline. */
  readonly findings: Readonly<Record<string, number>>
}

export interface Learner {
  /** Takes a request; says why when it is left out. */
  add(summary: RequestSummary): LeftOut | null
  leftOut(): Readonly<Record<LeftOut, number>>
  finish(requestsMin: number, now: Date): Learnt[]
}

interface Model {
  readonly model: ModelInfo
  readonly evidence: VerdictEvidence[]
  first: number
  last: number
}

/** @param takeBroken whether requests with findings of the bounds they were judged by count as healthy. */
export function createLearner(takeBroken = false): Learner {
  const models = new Map<string, Model>()
  const leftOut = { nonfinite: 0, broken: 0, incomplete: 0, unknown_model: 0, without_phases: 0 }

  function take(summary: RequestSummary): LeftOut | null {
    if (summary.nan + summary.posInf + summary.negInf > 0) return 'nonfinite'
    if (Object.keys(summary.model.hooks).length === 0) return 'unknown_model'
    if (summary.completeness.state !== 'complete') return 'incomplete'
    if (summary.phaseStatistics === undefined) return 'without_phases'
    if (!takeBroken && summary.findings.length > 0) return 'broken'
    const key = JSON.stringify(identityOf(summary.model))
    const at = summary.request.startedAtMicros
    const known = models.get(key) ?? { model: summary.model, evidence: [], first: at, last: at }
    models.set(key, known)
    known.first = Math.min(known.first, at)
    known.last = Math.max(known.last, at)
    known.evidence.push(evidenceOf(summary))
    return null
  }

  return {
    add(summary) {
      const why = take(summary)
      if (why !== null) leftOut[why] += 1
      return why
    },
    leftOut: () => leftOut,
    finish: (requestsMin, now) =>
      Array.from(models.values(), (model) => finishModel(model, requestsMin, now)),
  }
}

/** The part of a summary that rules read: many requests are held at once. */
function evidenceOf({ model, ...summary }: RequestSummary): VerdictEvidence {
  const { completeness, tokens, promptTokens } = summary
  const phases = phaseEvidence(summary.phases, summary.phaseStatistics ?? {})
  const { hooks: capture, layers } = model
  const measured = true
  return { phases, measured, nonfinite: 0, completeness, tokens, promptTokens, capture, layers }
}

function finishModel({ model, evidence, first, last }: Model, requestsMin: number, now: Date) {
  const requests = evidence.length
  if (requests < requestsMin) return { model, requests, baseline: null, findings: {} }
  const learnt = learnBounds(evidence, requestsMin)
  if (!hasBounds(learnt)) return { model, requests, baseline: null, findings: {} }
  const baseline: Baseline = {
    ...identityOf(model),
    requests,
    learnt_at: now.toISOString(),
    first_request_at: new Date(first / 1000).toISOString(),
    last_request_at: new Date(last / 1000).toISOString(),
    ...learnt,
  }
  return { model, requests, baseline, findings: countFindings(evidence, learnt) }
}

function learnBounds(evidence: readonly VerdictEvidence[], requestsMin: number): LearntBounds {
  const learn = (phase: Phase) => learnPhase(evidence, phase, requestsMin)
  return { phases: { prefill: learn('prefill'), decode: learn('decode') } }
}

function learnPhase(
  evidence: readonly VerdictEvidence[],
  phase: Phase,
  requestsMin: number,
): PhaseBounds {
  const globals: Record<string, LearntQuantiles> = {}
  const layers: Record<string, (LearntQuantiles | null)[]> = {}
  for (const judged of judgedStatistics.filter((one) => one.phases.includes(phase))) {
    const name = judgedName(judged)
    const fitting = evidence
      .filter((one) => one.tokens - one.promptTokens >= tokensMin(judged))
      .flatMap((one) => one.phases[phase] ?? [])
      .filter(({ tokens }) => tokens >= judged.tokensMin[phase])
    const learn = (values: readonly (number | null | undefined)[]): LearntQuantiles | null => {
      const known = values.filter((value): value is number => Number.isFinite(value))
      // What too few requests have is left to the built-in bounds.
      return known.length < requestsMin ? null : learnJudged(known, judged)
    }
    const global = learn(fitting.map((one) => one.globals[name]))
    if (global !== null) globals[name] = global
    const depth = fitting.reduce(
      (most, one) => Math.max(most, one.layerSeries[name]?.length ?? 0),
      0,
    )
    const series = Array.from({ length: depth }, (_, layer) =>
      learn(fitting.map((one) => one.layerSeries[name]?.[layer])),
    )
    if (series.some((quantiles) => quantiles !== null)) layers[name] = series
  }
  return { globals, layers }
}

function learnJudged(values: readonly number[], { below, above, range }: JudgedStatistic) {
  const side = below ?? above
  if (side === null) throw new Error('a judged statistic has at least one side')
  return withinRange(learnQuantiles(values, (below ?? side).scale, (above ?? side).scale), range)
}

/** A quantile that was moved out beyond the extreme stays a possible value. */
function withinRange(
  { n, p0_1, p1, p50, p99, p99_9 }: LearntQuantiles,
  [low, high]: readonly [number, number],
): LearntQuantiles {
  const within = (value: number): number => Math.min(Math.max(value, low), high)
  return {
    n,
    p0_1: within(p0_1),
    p1: within(p1),
    p50: within(p50),
    p99: within(p99),
    p99_9: within(p99_9),
  }
}

/** Generated tokens from which on the statistic is judged. */
function tokensMin({ above, below }: JudgedStatistic): number {
  if (above?.rule === 'looping') return verdictLimits.loopTokensMin
  return below?.rule === 'low_entropy' ? verdictLimits.entropyTokensMin : 0
}

function countFindings(evidence: readonly VerdictEvidence[], learnt: LearntBounds) {
  const settings = {
    rules: new Set(verdictRules),
    groups: new Set(Object.keys(statisticGroups) as StatisticGroup[]),
  }
  const counts: Record<string, number> = {}
  for (const one of evidence) {
    for (const { statistic, phase } of judge(one, settings, learnt, null).findings) {
      const name = phase === undefined ? statistic : `${phase} ${statistic}`
      counts[name] = (counts[name] ?? 0) + 1
    }
  }
  return counts
}
