/**
 * What a store of immutable objects can do. Two kinds exist: a directory (fs.ts) and a bucket
 * (s3.ts); queued.ts puts the files that still wait for their upload in front of a bucket.
 *
 * Keys are those of tensors/keys.ts. Writing returns an outcome, because its caller tries again;
 * reading throws RING2_E_STORE, because its caller answers a request. Nothing is ever overwritten
 * with other bytes: one key is one content.
 */

import type { Outcome } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'

export interface StoredObject {
  readonly key: string
  readonly bytes: number
}

export interface ObjectStore {
  /** Stores a local file under the key; it is visible whole or not at all. */
  put(key: string, path: string): Promise<Outcome<void>>
  /** Bytes [start, start + length) of an object; fewer only when the object ends before. */
  getRange(key: string, start: number, length: number): Promise<Uint8Array>
  /** Size in bytes; null when there is no such object. */
  size(key: string): Promise<number | null>
  /** Objects whose key starts with the prefix, in no order; other files are passed over. */
  list(prefix: string): AsyncIterable<StoredObject>
  /** Removes an object; one that is not there counts as removed. */
  delete(key: string): Promise<Outcome<void>>
  /** Frees connections. */
  close(): void
}

/** The error for an object that the catalogue names and the store has not. */
export function objectMissing(key: string, where: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `the object ${key} in ${where}`,
    actual: 'no such object',
    action: 'If it was removed on purpose, run `ring2-exporter catalog rebuild`.',
  })
}
