/**
 * Samples that are known only when a request has ended: whatever it generates may still repeat
 * itself. They go into the same folds as those measured from tensors.
 */
import type { FoldBook } from './folds.ts'
import { hooks } from './hooks.gen.ts'
import { constants, signals } from './layout.gen.ts'
import type { RequestSummary } from './records.ts'

const repetition = {
  signal: idOf(signals, 'request_repetition'),
  hook: idOf(new Map(hooks.map((hook) => [hook.id, hook.name])), 'token_ids'),
  layer: -1,
  phase: constants.phaseDecode,
}

function idOf(names: ReadonlyMap<number, string>, wanted: string): number {
  for (const [id, name] of names) if (name === wanted) return id
  throw new Error(`no ${wanted} in the layout`)
}

export function foldRequest(folds: FoldBook, summary: RequestSummary): void {
  const value = summary.globals['token_ids.repetition']
  if (value === undefined) return
  const fold = folds.of(summary.model.name)
  const key = folds.keyOf(summary.request)
  fold.record(repetition, Float64Array.of(value), key, summary.endedAtMicros)
}
