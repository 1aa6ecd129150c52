/** Which rows of a file belong to requests that are deleted. */

import type { DeletionTarget } from '../catalog/removal.ts'
import type { ParquetRow } from '../parquet/parquet-source.ts'
import type { Dataset } from '../store/keys.ts'

export interface Matcher {
  /** The columns that `matches` reads. */
  readonly columns: readonly string[]
  matches(row: ParquetRow): boolean
}

/** Rows of a context belong to the request that they lead to. */
export function matcher(dataset: Dataset, targets: readonly DeletionTarget[]): Matcher {
  const trace = dataset === 'contexts' ? 'stored_trace_id' : 'trace_id'
  const matches = targetTest(targets)
  return {
    columns: [trace, 'request_id'],
    matches: (row) => matches(String(row[trace]), String(row.request_id)),
  }
}

/** Whether a request is one of the targets. */
export function targetTest(
  targets: readonly DeletionTarget[],
): (traceId: string, requestId: string) => boolean {
  const whole = new Set<string>()
  const single = new Map<string, Set<string>>()
  for (const { traceId, requestId } of targets) {
    if (requestId === null) {
      whole.add(traceId)
      continue
    }
    const known = single.get(traceId) ?? new Set()
    single.set(traceId, known.add(requestId))
  }
  return (traceId, requestId) =>
    whole.has(traceId) || (single.get(traceId)?.has(requestId) ?? false)
}
