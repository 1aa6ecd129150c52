/**
 * Trace contexts by the ids that they name, the newest last: kept until they are old, within bounds
 * on ids, on contexts of one id, and on bytes. It does not know what a request is.
 *
 * Invariant: the bytes of a context are counted for each id that it names, so the bound is never
 * passed by what is really held.
 */
import type { CallerContext } from './contexts.ts'
import { collectorLimits } from './limits.ts'

export interface KeptContext {
  readonly context: CallerContext
  readonly atMillis: number
  /** Producer → its request that took the context. */
  readonly usedBy: Map<string, number>
}

export interface ContextTable {
  add(context: CallerContext, atMillis: number): KeptContext
  /** Contexts of the id, the newest last. */
  named(name: string): readonly KeptContext[]
  /** Forgets ids that no context has named since. */
  forgetUntil(millis: number): void
  /** Estimated bytes of what is kept. */
  readonly bytes: number
}

/** Objects and maps of one context and its place in the table, measured, without its texts. */
const CONTEXT_BYTES = 1024
const BYTES_PER_CHARACTER = 2

export function createContextTable(): ContextTable {
  const byName = new Map<string, KeptContext[]>()
  let bytes = 0

  function forget(name: string): void {
    for (const kept of byName.get(name) ?? []) bytes -= bytesOf(kept.context)
    byName.delete(name)
  }

  return {
    add(context, atMillis) {
      const kept = { context, atMillis, usedBy: new Map<string, number>() }
      for (const name of context.requestIds) {
        const list = byName.get(name) ?? []
        list.push(kept)
        bytes += bytesOf(context)
        if (list.length > collectorLimits.contextsPerIdMax) {
          for (const oldest of list.splice(0, 1)) bytes -= bytesOf(oldest.context)
        }
        // Insertion order is age: an id that is named again moves to the end.
        byName.delete(name)
        byName.set(name, list)
      }
      const { contextsMax, contextBytesMax } = collectorLimits
      for (const name of byName.keys()) {
        if (byName.size <= contextsMax && bytes <= contextBytesMax) break
        forget(name)
      }
      return kept
    },
    named: (name) => byName.get(name) ?? [],
    forgetUntil(millis) {
      for (const [name, list] of byName) {
        if ((list.at(-1)?.atMillis ?? 0) > millis) break
        forget(name)
      }
    },
    get bytes() {
      return bytes
    },
  }
}

function bytesOf({ requestIds, traceId, spanId, traceState }: CallerContext): number {
  let characters = traceId.length + spanId.length + (traceState?.length ?? 0)
  for (const id of requestIds) characters += id.length
  return CONTEXT_BYTES + BYTES_PER_CHARACTER * characters
}
