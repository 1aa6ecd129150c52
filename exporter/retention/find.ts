/**
 * Where the rows of a deletion are: by the catalogue, for the files that it describes. Files of requests
 * and contexts that it does not describe, as those of other exporters of a bucket, are listed by
 * their folders, which the model and the day of a request tell, and may have rows or not.
 */

import type { CatalogRemoval, DeletionTarget, HeldRequestPlace } from '../catalog/removal.ts'
import { partition } from '../store/keys.ts'
import type { DeletionContext } from './context.ts'
import { importTraces } from './indexes.ts'

export interface FoundDeletion {
  readonly targets: readonly DeletionTarget[]
  readonly requests: number
  /** Ids of all traces that the requests are known by. */
  readonly traces: readonly string[]
  /** Keys of files that have rows of the targets, or may have. */
  readonly files: readonly string[]
}

/** Null when nothing is known of the trace, or of the request in it. */
export async function findDeletion(
  context: DeletionContext,
  removal: CatalogRemoval,
  traceId: string,
  requestId: string | null,
): Promise<FoundDeletion | null> {
  await importTraces(context, [traceId])
  await importTraces(context, removal.traces(removal.targets(traceId, requestId)))
  // Of those, others may have stored more.
  const targets = removal.targets(traceId, requestId)
  if (targets.length === 0) return null
  const requests = removal.requests(targets)
  const files = new Set([...removal.tensorFiles(targets), ...removal.listingFiles(targets)])
  for (const prefix of foldersOf(requests)) {
    for await (const { key } of context.store.list(prefix)) {
      if (!removal.isListing(key)) files.add(key)
    }
  }
  return {
    targets,
    requests: requests.length,
    traces: removal.traces(targets),
    files: [...files],
  }
}

/** Folders of both datasets; earlier versions called them `model=`. */
function foldersOf(requests: readonly HeldRequestPlace[]): Set<string> {
  const folders = requests.flatMap(({ model, startedAtMicros }) =>
    (['requests', 'contexts'] as const).map((dataset) =>
      partition(dataset, model, startedAtMicros),
    ),
  )
  return new Set(
    folders.flatMap((folder) => [`${folder}/`, `${folder.replace('/model_slug=', '/model=')}/`]),
  )
}
