/**
 * Where the rows of a deletion are: tensor files by the catalogue, and the files of requests and
 * contexts by their folders, which the model and the day of a request tell.
 */

import type { StoreLocation } from '../store/location.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type {
  CatalogRemoval,
  DeletionTarget,
  HeldRequestPlace,
} from '../tensors/catalog-removal.ts'
import { partition } from '../tensors/keys.ts'

export interface FoundDeletion {
  readonly targets: readonly DeletionTarget[]
  readonly requests: number
  /** Keys of the trace index. */
  readonly indexes: readonly string[]
  /** Keys of files that have rows of the targets, or may have. */
  readonly files: readonly string[]
}

interface Sought {
  readonly location: StoreLocation
  readonly store: ObjectStore
}

/** Null when nothing is known of the trace, or of the request in it. */
export async function findDeletion(
  { store }: Sought,
  removal: CatalogRemoval,
  traceId: string,
  requestId: string | null,
): Promise<FoundDeletion | null> {
  const targets = removal.targets(traceId, requestId)
  if (targets.length === 0) return null
  const requests = removal.requests(targets)
  const files = new Set(removal.tensorFiles(targets))
  for (const prefix of foldersOf(requests)) {
    for await (const { key } of store.list(prefix)) files.add(key)
  }
  return {
    targets,
    requests: requests.length,
    indexes: removal.indexes(targets),
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
