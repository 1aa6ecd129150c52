/**
 * Results that are asked for again while a person zooms: the least recently used ones go when their
 * bytes pass a bound. Two who ask for one thing at once wait for one computation.
 *
 * Keys name the stored rows that a result comes from, so an entry is never stale.
 */

import { viewLimits } from '../limits.ts'

export interface ViewCache {
  /** The result under this key, computed if it is not there; a failure is not kept. */
  get<T>(key: string, compute: () => Promise<Sized<T>>): Promise<T>
  bytes(): number
}

export interface Sized<T> {
  readonly value: T
  readonly bytes: number
}

interface Entry {
  readonly result: Promise<Sized<unknown>>
  bytes: number
}

export function createViewCache(bytesMax: number = viewLimits.cacheBytesMax): ViewCache {
  // Insertion order is age.
  const entries = new Map<string, Entry>()
  let total = 0

  function forget(key: string, entry: Entry): void {
    if (entries.get(key) !== entry) return
    entries.delete(key)
    total -= entry.bytes
  }

  function settle(key: string, entry: Entry, bytes: number): void {
    if (entries.get(key) !== entry) return
    entry.bytes = bytes
    total += bytes
    for (const [oldest, one] of entries) {
      if (total <= bytesMax) return
      forget(oldest, one)
    }
  }

  async function get<T>(key: string, compute: () => Promise<Sized<T>>): Promise<T> {
    const known = entries.get(key)
    if (known !== undefined) {
      entries.delete(key)
      entries.set(key, known)
      return (await known.result).value as T
    }
    const result = compute()
    const entry: Entry = { result, bytes: 0 }
    entries.set(key, entry)
    try {
      const { value, bytes } = await result
      settle(key, entry, bytes)
      return value
    } catch (error) {
      forget(key, entry)
      throw error
    }
  }

  return { get, bytes: () => total }
}
