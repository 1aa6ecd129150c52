/**
 * The slots of a llama-server, lent to one request at a time, so that it is known which request a slot
 * is processing. Whoever comes when all are taken waits, first come first served.
 *
 * All slots are lent together only when none is lent, and nobody who came later overtakes who waits
 * for that.
 */

export interface Slots {
  readonly count: number
  /** A free slot, or exactly this one. Rejects when the signal aborts before there is one. */
  take(signal: AbortSignal, wanted?: number): Promise<number>
  /** Every slot. Rejects when the signal aborts before all are free. */
  takeAll(signal: AbortSignal): Promise<void>
  giveBack(slot: number): void
  giveBackAll(): void
}

interface Waiting {
  readonly wanted: number | 'any' | 'all'
  resolve(slot: number): void
}

export function createSlots(count: number): Slots {
  const every = Array.from({ length: count }, (_, slot) => slot)
  // The one that was given back longest ago comes first: the others keep their prompts cached.
  const free = [...every]
  const queue: Waiting[] = []

  function pick(wanted: Waiting['wanted']): number | undefined {
    if (wanted === 'all') return free.length === count ? free.splice(0)[0] : undefined
    const at = wanted === 'any' ? 0 : free.indexOf(wanted)
    return at < 0 ? undefined : free.splice(at, 1)[0]
  }

  function serve(): void {
    for (const waiting of [...queue]) {
      const slot = pick(waiting.wanted)
      if (slot !== undefined) {
        queue.splice(queue.indexOf(waiting), 1)
        waiting.resolve(slot)
      } else if (waiting.wanted === 'all') return
    }
  }

  function wait(signal: AbortSignal, wanted: Waiting['wanted']): Promise<number> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new Error('the client has gone'))
      const leave = (): void => {
        const at = queue.indexOf(waiting)
        if (at < 0) return
        queue.splice(at, 1)
        reject(new Error('the client has gone'))
        serve()
      }
      const waiting: Waiting = {
        wanted,
        resolve(slot) {
          signal.removeEventListener('abort', leave)
          resolve(slot)
        },
      }
      signal.addEventListener('abort', leave, { once: true })
      queue.push(waiting)
      serve()
    })
  }

  return {
    count,
    take: (signal, wanted) => wait(signal, wanted ?? 'any'),
    takeAll: async (signal) => {
      await wait(signal, 'all')
    },
    giveBack(slot) {
      free.push(slot)
      serve()
    },
    giveBackAll() {
      free.push(...every)
      serve()
    },
  }
}
