/**
 * Removes what the rules say, a bounded number of files at a time: first from the store, then from the
 * catalogue, so that a crash in between is mended by the next pass. Every removal is told of.
 *
 * Only files that this store's catalogue describes are looked at. Of several exporters with one bucket
 * each removes its own files; one whose catalogue was made again from the bucket knows all of them.
 */

import type { Catalog } from '../catalog/catalog.ts'
import { openCatalogExpiry } from '../catalog/expiry.ts'
import { slug } from '../store/keys.ts'
import type { StoreLocation } from '../store/location.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { retentionLimits } from './limits.ts'
import { expiredBefore, type PlannedRemoval, planRetention } from './plan.ts'
import { removeObject } from './remove-object.ts'
import type { RetentionRules } from './rules.ts'

export interface RetentionContext {
  readonly location: StoreLocation
  readonly store: ObjectStore
  readonly catalog: Catalog
  readonly rules: RetentionRules
  /** Waits for the disk at each removal; off by default. */
  readonly fsync?: boolean
  /** Called for each file that is gone. */
  readonly onRemoved: (removal: PlannedRemoval) => void
}

export interface PassReport {
  readonly files: number
  readonly bytes: number
  /** Requests that are not listed any more. */
  readonly requests: number
  /** Files that are left for the next pass. */
  readonly left: number
}

const DAY_MILLIS = 86_400_000

/**
 * @param filesMax files removed at most.
 * @throws Ring2Error when the store or the catalogue refuses; what was removed before stays so.
 */
export async function retentionPass(
  context: RetentionContext,
  nowMillis: number,
  filesMax: number = retentionLimits.passFilesMax,
): Promise<PassReport> {
  const { location, store, catalog, rules, onRemoved } = context
  const place = { location, store, fsync: context.fsync ?? false }
  const planned = planRetention(catalog.files(), rules, nowMillis)
  const due = planned.slice(0, filesMax)
  const expiry = openCatalogExpiry(location.catalog, location.target.kind === 's3')
  let bytes = 0
  try {
    for (const removal of due) {
      await removeObject(place, removal.key)
      expiry.removeFile(removal.key)
      bytes += removal.bytes
      onRemoved(removal)
    }
    const left = planned.length - due.length
    // What is listed goes last: as long as files are left, their requests may have tensors.
    const requests = left > 0 ? 0 : forgetRequests(expiry, rules, nowMillis)
    return { files: due.length, bytes, requests, left }
  } finally {
    expiry.close()
  }
}

function forgetRequests(
  expiry: ReturnType<typeof openCatalogExpiry>,
  rules: RetentionRules,
  nowMillis: number,
): number {
  let requests = 0
  for (const model of expiry.models()) {
    const before = expiredBefore(rules, slug(model), nowMillis)
    if (before === null) continue
    // Their files go by whole days, and so do they.
    const day = Math.floor(before / DAY_MILLIS) * DAY_MILLIS
    requests += expiry.forgetRequests(model, day * 1000)
  }
  return requests
}
