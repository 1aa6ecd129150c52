/**
 * Opens the store that a location names. The SDK of buckets is loaded only when one is used.
 */

import { createDirectoryStore } from './fs.ts'
import type { StoreLocation } from './location.ts'
import type { ObjectStore } from './object-store.ts'
import { createQueuedStore } from './queued.ts'

export interface OpenedStore {
  /** What readers use: a bucket with its queue in front, or the directory. */
  readonly store: ObjectStore
  /** Where the uploader writes; null for a directory store, which needs none. */
  readonly bucket: ObjectStore | null
}

export async function openStore(location: StoreLocation): Promise<OpenedStore> {
  const target = location.target
  if (target.kind === 'directory') return { store: createDirectoryStore(target.root), bucket: null }
  const { createBucketStore } = await import('./s3.ts')
  const bucket = createBucketStore(target)
  return { store: createQueuedStore(bucket, location.queue), bucket }
}
