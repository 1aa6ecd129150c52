/**
 * The trace indexes of a bucket during a deletion: what other exporters stored of a trace is brought
 * into the catalogue before, the indexes of rows that moved are written again, and those of what is
 * deleted are removed. A directory has none: nothing is done.
 */

import type { CatalogRemoval } from '../catalog/removal.ts'
import { createTraceFinder } from '../catalog/trace-finder.ts'
import { createTracePublisher } from '../catalog/trace-publisher.ts'
import type { Ring2Error } from '../errors.ts'
import type { DeletionContext } from './context.ts'
import type { Journal } from './journal.ts'

/**
 * Makes the catalogue know all that the bucket tells of the traces.
 *
 * @throws Ring2Error when something of them cannot be read: it could not be deleted either.
 */
export async function importTraces(
  { catalog, bucket }: DeletionContext,
  traceIds: readonly string[],
): Promise<void> {
  if (bucket === null) return
  const finder = createTraceFinder({ catalog, bucket })
  for (const traceId of new Set(traceIds)) {
    const [problem] = await finder.find(traceId)
    if (problem !== undefined) throw problem
  }
}

/** Writes the indexes of what was rewritten, so that nobody is led to a file that is gone. */
export async function publishIndexes(context: DeletionContext): Promise<void> {
  const { catalog, bucket, location } = context
  if (bucket === null) return
  const errors: Ring2Error[] = []
  const publisher = createTracePublisher({
    catalog,
    bucket,
    queue: location.queue,
    onError: (error) => void errors.push(error),
  })
  await publisher.flush()
  if (errors[0] !== undefined) throw errors[0]
}

/** Also those that were written, here or elsewhere, while the deletion ran. */
export async function removeIndexes(
  context: DeletionContext,
  removal: CatalogRemoval,
  journal: Journal,
): Promise<void> {
  const { bucket } = context
  if (bucket === null) return
  await importTraces(context, journal.traces)
  for (const key of removal.indexes(journal.targets)) {
    const outcome = await bucket.delete(key)
    if (outcome.status !== 'success') throw outcome.error
  }
}
