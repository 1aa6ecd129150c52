/**
 * What a store of immutable objects can do. Two kinds exist: a directory (fs.ts) and a bucket
 * (s3.ts); queued.ts puts the files that still wait for their upload in front of a bucket.
 *
 * Keys are those of store/keys.ts. Files are immutable; only small objects (`putBytes`) may be
 * replaced. Writing returns an outcome, because its caller tries again;
 * reading throws RING2_E_STORE, because its caller answers a request.
 */

import type { Outcome } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'
import { assertKey, isIndexKey, isKey } from './keys.ts'

export interface StoredObject {
  readonly key: string
  readonly bytes: number
}

/** `present`: the key was there already, and nothing was written. */
export type PutResult = 'stored' | 'present'

export interface PutOptions {
  /** Gives the attempt up; the file can be put again. */
  readonly signal?: AbortSignal
}

export interface PutBytesOptions {
  /** Leaves an object that is there as it is. Without it the object is replaced. */
  readonly ifAbsent?: boolean
}

export interface ListOptions {
  /** Objects yielded at most. */
  readonly limit?: number
}

export interface ObjectStore {
  /**
   * Stores a local file under the key; it is visible whole or not at all, and `success` means that
   * all of it is there. A key that is there with as many bytes is `present`; with another size it
   * is a failure, and nothing is overwritten. A failure is of this object, and says nothing of
   * others; everything else is retryable.
   */
  put(key: string, path: string, options?: PutOptions): Promise<Outcome<PutResult>>
  /** Stores a small object, whole or not at all. */
  putBytes(key: string, bytes: Uint8Array, options?: PutBytesOptions): Promise<Outcome<PutResult>>
  /** Bytes [start, start + length) of an object; fewer only when the object ends before. */
  getRange(key: string, start: number, length: number): Promise<Uint8Array>
  /** A whole small object; null when it is absent. Throws when it has more than `bytesMax` bytes. */
  read(key: string, bytesMax: number): Promise<Uint8Array | null>
  /** Size in bytes; null when there is no such object. */
  size(key: string): Promise<number | null>
  /** Objects whose key starts with the prefix, in no order; other files are passed over. */
  list(prefix: string, options?: ListOptions): AsyncIterable<StoredObject>
  /** Removes an object; one that is not there counts as removed. */
  delete(key: string): Promise<Outcome<void>>
  /** Frees connections. */
  close(): void
}

/** Files, and the small objects by which the traces of a bucket are found. */
export function isObjectKey(text: string): boolean {
  return isKey(text) || isIndexKey(text)
}

/** Throws RING2_E_STORE unless the text is the key of an object; names are not trusted. */
export function assertObjectKey(text: string): string {
  return isIndexKey(text) ? text : assertKey(text)
}

/** The error for an object that the catalogue names and the store has not. */
export function objectMissing(key: string, where: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `the object ${key} in ${where}`,
    actual: 'no such object',
    action: 'If it was removed on purpose, run `ring2-exporter catalog rebuild`.',
  })
}

/** The error for a small object that is not as small as its reader takes. */
export function objectTooLarge(key: string, bytes: number, bytesMax: number): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `at most ${bytesMax} bytes in the object ${key}`,
    actual: `${bytes} bytes`,
    action: 'Remove the object if the exporter did not write it.',
  })
}

/** The error for a key that holds something else than the file that is to be stored there. */
export function objectDiffers(
  key: string,
  bytes: number,
  there: number | null,
  detail = '',
): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `no object ${key}, or the same ${bytes} bytes there`,
    actual: `an object of ${there ?? 'unknown'} bytes ${detail}`.trim(),
    action: 'Nothing was overwritten. Move that object away if the exporter did not write it.',
  })
}
