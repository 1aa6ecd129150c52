/** A map that keeps the most recently used entries, up to a bound. */

export interface Recent<T> {
  get(key: string): T | undefined
  set(key: string, value: T): void
  values(): Iterable<T>
}

export function createRecent<T>(most: number): Recent<T> {
  const entries = new Map<string, T>()
  return {
    get(key) {
      const value = entries.get(key)
      if (value === undefined) return undefined
      entries.delete(key)
      entries.set(key, value)
      return value
    },
    set(key, value) {
      entries.delete(key)
      entries.set(key, value)
      const [oldest] = entries.keys()
      if (entries.size > most && oldest !== undefined) entries.delete(oldest)
    },
    values: () => entries.values(),
  }
}
