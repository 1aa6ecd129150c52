/**
 * Joins ranges of one object that are asked for at the same time: those that lie next to each other,
 * or nearly, are read by one request. A request costs more than the bytes between them.
 */

import { answerLimits } from '../limits.ts'

export interface RangeReader {
  /** Bytes [start, end). */
  read(start: number, end: number): Promise<ArrayBuffer>
}

interface Waiting {
  readonly start: number
  readonly end: number
  readonly resolve: (bytes: ArrayBuffer) => void
  readonly reject: (error: unknown) => void
}

/** @param fetch exactly the bytes [start, end), in a buffer of their own. */
export function createRangeReader(
  fetch: (start: number, end: number) => Promise<Uint8Array<ArrayBuffer>>,
): RangeReader {
  let waiting: Waiting[] = []

  function read(start: number, end: number): Promise<ArrayBuffer> {
    return new Promise((resolve, reject) => {
      // Whoever asks in this turn of the event loop is answered together.
      if (waiting.length === 0) setImmediate(fetchAll)
      waiting.push({ start, end, resolve, reject })
    })
  }

  function fetchAll(): void {
    const runs = joined(waiting)
    waiting = []
    for (const run of runs) void fetchRun(run)
  }

  async function fetchRun(run: readonly Waiting[]): Promise<void> {
    const start = run[0]?.start ?? 0
    const end = Math.max(...run.map((one) => one.end))
    try {
      const { buffer } = await fetch(start, end)
      for (const one of run) {
        const whole = one.start === start && one.end === end && run.length === 1
        one.resolve(whole ? buffer : buffer.slice(one.start - start, one.end - start))
      }
    } catch (error) {
      for (const one of run) one.reject(error)
    }
  }

  return { read }
}

function joined(waiting: readonly Waiting[]): Waiting[][] {
  const runs: Waiting[][] = []
  let end = 0
  for (const next of waiting.toSorted((left, right) => left.start - right.start)) {
    const run = runs.at(-1)
    const near = next.start <= end + answerLimits.rangeGapBytesMax
    const small = next.end - (run?.[0]?.start ?? 0) <= answerLimits.sourceChunkBytes
    if (run !== undefined && near && (small || next.end <= end)) run.push(next)
    else runs.push([next])
    end = runs.at(-1) === run ? Math.max(end, next.end) : next.end
  }
  return runs
}
