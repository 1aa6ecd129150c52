/** What a deletion works on: the store, its state and its catalogue. Not here: how they are opened (open.ts). */

import type { Catalog } from '../catalog/catalog.ts'
import type { StoreLocation } from '../store/location.ts'
import type { ObjectStore } from '../store/object-store.ts'

export interface DeletionContext {
  readonly location: StoreLocation
  /** What readers use: a bucket with its queue in front, or the directory. */
  readonly store: ObjectStore
  /** The bucket itself; null for a directory. */
  readonly bucket: ObjectStore | null
  readonly catalog: Catalog
  /** Waits for the disk at each rewritten file. */
  readonly fsync: boolean
  /** How long to wait for what is on its way; the default is `deletionLimits.settleMillisMax`. */
  readonly settleMillis?: number
  /** The default is `deletionLimits.partBytesMax`. */
  readonly partBytesMax?: number
}
