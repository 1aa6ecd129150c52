/** Removes one file of a store so that, where that was asked for, a power cut does not bring it back. */

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Outcome } from '../../collector/records.ts'
import type { StoreLocation } from '../store/location.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { syncPath } from '../tensors/spool.ts'

export interface RemovalPlace {
  readonly location: StoreLocation
  readonly store: ObjectStore
  /** Waits until the disk has a directory's entries. */
  readonly fsync: boolean
}

/** One that is not there counts as removed. Throws the store's error. */
export async function removeObject(place: RemovalPlace, key: string): Promise<void> {
  const { location, store, fsync } = place
  must(await store.delete(key))
  if (!fsync || location.target.kind !== 'directory') return
  const folder = dirname(join(location.target.root, key))
  if (existsSync(folder)) syncPath(folder)
}

export function must(outcome: Outcome<unknown>): void {
  if (outcome.status !== 'success') throw outcome.error
}
