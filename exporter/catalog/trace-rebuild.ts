/**
 * Writes the indexes of a bucket again, from a catalogue that was just rebuilt, and removes what no
 * longer tells the truth: indexes that are damaged, or that name files which are gone.
 *
 * Other exporters may write at the same time: an index names only files that are in the bucket, so
 * one that was written a moment ago is never taken for a stale one.
 */

import { asRing2Error, Ring2Error } from '../errors.ts'
import { indexLimits } from '../limits.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Catalog } from './catalog.ts'
import { decodeIndex } from './trace-index.ts'
import { createTracePublisher } from './trace-publisher.ts'

export interface IndexRebuildReport {
  /** Requests whose index could not be written, or waits for files that are not uploaded yet. */
  readonly due: number
  /** Indexes that were removed. */
  readonly removed: number
  readonly errors: readonly Ring2Error[]
}

export async function rebuildIndexes(
  catalog: Catalog,
  bucket: ObjectStore,
  queue: string,
): Promise<IndexRebuildReport> {
  const errors: Ring2Error[] = []
  const onError = (error: Ring2Error) => void errors.push(error)
  catalog.indexes.allDue()
  const due = await createTracePublisher({ catalog, bucket, queue, onError }).flush()
  let removed = 0
  try {
    for await (const { key } of bucket.list('catalog/')) {
      if (catalog.indexes.isKnown(key) || !(await isStale(catalog, bucket, key))) continue
      const outcome = await bucket.delete(key)
      if (outcome.status !== 'success') throw outcome.error
      removed += 1
    }
  } catch (error) {
    errors.push(asRing2Error(error))
  }
  return { due, removed, errors }
}

async function isStale(catalog: Catalog, bucket: ObjectStore, key: string): Promise<boolean> {
  const bytes = await bucket.read(key, indexLimits.bytesMax)
  if (bytes === null) return false
  const whole = decodeOrNull(key, bytes)
  if (whole === null) return true
  for (const file of whole.files) {
    if (catalog.file(file.key) === null && (await bucket.size(file.key)) === null) return true
  }
  return false
}

function decodeOrNull(key: string, bytes: Uint8Array) {
  try {
    return decodeIndex(key, bytes)
  } catch (error) {
    if (error instanceof Ring2Error) return null
    throw error
  }
}
