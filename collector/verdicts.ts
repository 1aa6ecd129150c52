/**
 * Judges the requests of all segments of one worker: holds the baselines that are in force, and
 * counts per model how often none could be used. The rules themselves are in verdict.ts.
 */
import { type Baseline, type BaselineMiss, chooseBaseline } from './baseline.ts'
import { collectorLimits } from './limits.ts'
import type { ModelInfo } from './records.ts'
import { type StatisticGroup, statisticGroups } from './statistic-groups.ts'
import { type Judgement, judge, type VerdictEvidence } from './verdict.ts'
import { type VerdictRule, verdictRules } from './verdict-rules.ts'

/** What a file of baselines gave. */
export interface BaselineBook {
  readonly baselines: readonly Baseline[]
  /** Why the file cannot be used, in words: then no request is called ok. */
  readonly fault: string | null
}

export const noBaselines: BaselineBook = { baselines: [], fault: null }

/** Why a request was judged by the built-in bounds. */
export type BaselineUnused = BaselineMiss | 'damaged'

export interface UnusedBaselines {
  readonly model: string
  readonly reason: BaselineUnused
  readonly requests: number
}

export interface VerdictOptions {
  readonly rules: readonly (VerdictRule | 'all')[]
  /** Groups of statistics that are computed. */
  readonly statistics: readonly (StatisticGroup | 'all')[]
  readonly book: BaselineBook
}

export interface Verdicts {
  judge(model: ModelInfo, evidence: VerdictEvidence): Judgement
  /** Baselines for the requests that end from now on. */
  setBook(book: BaselineBook): void
  unused(): readonly UnusedBaselines[]
}

export function createVerdicts(options: VerdictOptions): Verdicts {
  const settings = {
    rules: new Set<VerdictRule>(
      options.rules.flatMap((rule) => (rule === 'all' ? verdictRules : [rule])),
    ),
    groups: new Set<StatisticGroup>(
      options.statistics.flatMap((group) =>
        group === 'all' ? (Object.keys(statisticGroups) as StatisticGroup[]) : [group],
      ),
    ),
  }
  const counts = new Map<string, UnusedBaselines>()
  let book = options.book

  function countUnused(model: string, reason: BaselineUnused): void {
    const key = JSON.stringify([model, reason])
    const known = counts.get(key)
    if (known === undefined && counts.size >= collectorLimits.unusedBaselinesMax) return
    counts.set(key, { model, reason, requests: (known?.requests ?? 0) + 1 })
  }

  return {
    judge(model, evidence) {
      if (book.fault !== null) {
        countUnused(model.name, 'damaged')
        return judge(evidence, settings, null, book.fault)
      }
      const choice = chooseBaseline(book.baselines, model)
      if (!choice.found) countUnused(model.name, choice.miss)
      return judge(evidence, settings, choice.found ? choice.baseline : null, null)
    },
    setBook(next) {
      book = next
    },
    unused: () => [...counts.values()],
  }
}
