/**
 * Learns baselines from the summaries of requests that were healthy. Pure.
 *
 * Left out are requests that say nothing about health: open ones, those whose capture is not
 * complete, and those with NaN or infinities. Only statistics that a rule reads are learnt, each
 * from the requests that the rule would judge.
 */
import { type Baseline, identityOf, type LearntBounds, type LearntQuantiles } from './baseline.ts'
import { learnQuantiles } from './baseline-bounds.ts'
import type { ModelInfo, RequestSummary } from './records.ts'
import { type StatisticGroup, statisticGroups } from './statistic-groups.ts'
import { judge, type VerdictEvidence } from './verdict.ts'
import {
  type JudgedStatistic,
  judgedStatistics,
  verdictLimits,
  verdictRules,
} from './verdict-rules.ts'

export type LeftOut = 'nonfinite' | 'incomplete' | 'unknown_model'

/** What one model's requests gave. */
export interface Learnt {
  readonly model: ModelInfo
  readonly requests: number
  /** Null with fewer requests than are needed. */
  readonly baseline: Baseline | null
  /** `<hook>.<statistic>` → requests learnt from that would be findings by this baseline. */
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

export function createLearner(): Learner {
  const models = new Map<string, Model>()
  const leftOut: Record<LeftOut, number> = { nonfinite: 0, incomplete: 0, unknown_model: 0 }

  function take(summary: RequestSummary): LeftOut | null {
    if (summary.nan + summary.posInf + summary.negInf > 0) return 'nonfinite'
    if (Object.keys(summary.model.hooks).length === 0) return 'unknown_model'
    if (summary.completeness.state !== 'complete') return 'incomplete'
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
function evidenceOf(summary: RequestSummary): VerdictEvidence {
  const layerSeries: Record<string, readonly (number | null)[]> = {}
  const globals: Record<string, number> = {}
  const extra = ['token_ids.loop_period', 'token_ids.tokens_tracked']
  for (const name of [...judgedStatistics.map(nameOf), ...extra]) {
    const series = summary.layerSeries[name]
    if (series !== undefined) layerSeries[name] = series
    const value = summary.globals[name]
    if (value !== undefined) globals[name] = value
  }
  const { completeness, tokens, promptTokens, model } = summary
  const { hooks: capture, layers } = model
  return { layerSeries, globals, nonfinite: 0, completeness, tokens, promptTokens, capture, layers }
}

function finishModel({ model, evidence, first, last }: Model, requestsMin: number, now: Date) {
  const requests = evidence.length
  if (requests < requestsMin) return { model, requests, baseline: null, findings: {} }
  const learnt = learnBounds(evidence, requestsMin)
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
  const globals: Record<string, LearntQuantiles> = {}
  const layers: Record<string, (LearntQuantiles | null)[]> = {}
  for (const judged of judgedStatistics) {
    const name = nameOf(judged)
    const fitting = evidence.filter((one) => one.tokens - one.promptTokens >= tokensMin(judged))
    const learn = (values: readonly (number | null | undefined)[]): LearntQuantiles | null => {
      const known = values.filter((value): value is number => Number.isFinite(value))
      // What too few requests have is left to the built-in bounds.
      return known.length < requestsMin ? null : learnJudged(known, judged)
    }
    const global = learn(fitting.map((one) => one.globals[name]))
    if (global !== null) globals[name] = global
    const depth = Math.max(0, ...fitting.map((one) => one.layerSeries[name]?.length ?? 0))
    const series = Array.from({ length: depth }, (_, layer) =>
      learn(fitting.map((one) => one.layerSeries[name]?.[layer])),
    )
    if (series.some((quantiles) => quantiles !== null)) layers[name] = series
  }
  return { globals, layers }
}

function learnJudged(values: readonly number[], { below, above }: JudgedStatistic) {
  const side = below ?? above
  if (side === null) throw new Error('a judged statistic has at least one side')
  return learnQuantiles(values, (below ?? side).scale, (above ?? side).scale)
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
    for (const { statistic } of judge(one, settings, learnt, null).findings) {
      counts[statistic] = (counts[statistic] ?? 0) + 1
    }
  }
  return counts
}

function nameOf({ hook, statistic }: JudgedStatistic): string {
  return `${hook}.${statistic}`
}
