/**
 * The slots of a llama-server, lent to one request at a time, so that it is known which request a slot
 * is processing. Whoever comes when all are taken waits, first come first served.
 */

export interface Slots {
  /** A free slot, or exactly this one. Rejects when the signal aborts before there is one. */
  take(signal: AbortSignal, wanted?: number): Promise<number>
  giveBack(slot: number): void
}

interface Waiting {
  readonly wanted: number | undefined
  resolve(slot: number): void
}

export function createSlots(count: number): Slots {
  // The one that was given back longest ago comes first: the others keep their prompts cached.
  const free = Array.from({ length: count }, (_, slot) => slot)
  const queue: Waiting[] = []

  function pick(wanted: number | undefined): number | undefined {
    const at = wanted === undefined ? 0 : free.indexOf(wanted)
    return at < 0 ? undefined : free.splice(at, 1)[0]
  }

  return {
    take(signal, wanted) {
      const slot = pick(wanted)
      if (slot !== undefined) return Promise.resolve(slot)
      return new Promise((resolve, reject) => {
        const waiting: Waiting = { wanted, resolve }
        queue.push(waiting)
        const leave = (): void => {
          const at = queue.indexOf(waiting)
          if (at < 0) return
          queue.splice(at, 1)
          reject(new Error('the client has gone'))
        }
        if (signal.aborted) leave()
        else signal.addEventListener('abort', leave, { once: true })
      })
    },
    giveBack(slot) {
      const at = queue.findIndex(({ wanted }) => wanted === undefined || wanted === slot)
      if (at < 0) free.push(slot)
      else queue.splice(at, 1)[0]?.resolve(slot)
    },
  }
}
