/**
 * Counts the requests that have ended, per model, verdict and completeness.
 *
 * Every count that a model can have is there, as 0, from the moment that the model is known: a
 * counter that appears with its first event hides that event from whoever takes differences. Models
 * beyond the bound share one name, as they do in the histograms.
 */
import {
  type CompletenessState,
  collectorLimits,
  completenessStates,
  OTHER_MODELS,
  type RequestSummary,
  type Verdict,
  verdicts,
} from '../../collector/index.ts'
import type { RequestCount } from '../telemetry/metric-points.ts'

export interface RequestCounts {
  /** A model has announced itself. */
  know(model: string): void
  count(summary: RequestSummary): void
  list(): RequestCount[]
}

export function createRequestCounts(): RequestCounts {
  const counts = new Map<string, RequestCount>()
  const known = new Set<string>()

  function add(model: string, verdict: Verdict, completeness: CompletenessState, by: number): void {
    const name = JSON.stringify([model, verdict, completeness])
    const count = (counts.get(name)?.count ?? 0) + by
    counts.set(name, { model, verdict, completeness, count })
  }

  function know(model: string): string {
    const name = known.size < collectorLimits.modelsMax || known.has(model) ? model : OTHER_MODELS
    if (known.has(name)) return name
    known.add(name)
    for (const verdict of verdicts) {
      // What is not known to be complete is never ok.
      for (const state of verdict === 'ok' ? completenessStates.slice(0, 1) : completenessStates) {
        add(name, verdict, state, 0)
      }
    }
    return name
  }

  return {
    know: (model) => void know(model),
    count: ({ model, verdict, completeness }) =>
      add(know(model.name), verdict, completeness.state, 1),
    list: () => [...counts.values()],
  }
}
