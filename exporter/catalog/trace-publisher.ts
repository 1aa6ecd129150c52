/**
 * Writes the indexes that are due into the bucket: of requests that have ended, once all their files
 * have left the upload queue, so that an index never names what is not there yet.
 *
 * What is due is in the catalogue's database, so a crash loses none of it; an index that is written
 * twice is one object. An error leaves the rest due and is told; the next pass tries again.
 */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { asRing2Error, type Ring2Error } from '../errors.ts'
import { indexLimits } from '../limits.ts'
import { flatName } from '../store/keys.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Catalog } from './catalog.ts'
import type { DueIndex } from './indexes.ts'
import { encodeIndex } from './trace-index.ts'

export interface TracePublisherOptions {
  readonly catalog: Catalog
  readonly bucket: ObjectStore
  /** The folder of files that wait for their upload. */
  readonly queue: string
  /** Called at each failed attempt; the index stays due. */
  readonly onError: (error: Ring2Error) => void
  /** The default is that of `indexLimits`. */
  readonly pollMillis?: number
}

export interface TracePublisher {
  /** Writes what is due, now and again until `stop`. */
  start(): void
  /** Writes all that can be written now. Resolves with how many are still due. */
  flush(): Promise<number>
  stop(): Promise<void>
}

export function createTracePublisher(options: TracePublisherOptions): TracePublisher {
  const pollMillis = options.pollMillis ?? indexLimits.pollMillis
  let timer: NodeJS.Timeout | null = null
  let running: Promise<number> | null = null
  let stopping = false

  function flush(): Promise<number> {
    running ??= pass(options, () => stopping)
      .catch((error: unknown) => {
        options.onError(asRing2Error(error))
        return 1
      })
      .finally(() => {
        running = null
      })
    return running
  }

  function schedule(millis: number): void {
    timer = setTimeout(() => {
      void flush().then(() => {
        if (!stopping) schedule(pollMillis)
      })
    }, millis)
    timer.unref()
  }

  return {
    start: () => schedule(0),
    flush,
    stop: async () => {
      stopping = true
      if (timer !== null) clearTimeout(timer)
      await running
    },
  }
}

/** Until nothing that is due can be written. Returns how many are left. */
async function pass(options: TracePublisherOptions, stopped: () => boolean): Promise<number> {
  const { indexes } = options.catalog
  while (!stopped()) {
    const due = indexes.due(indexLimits.dueAtOnce)
    const results = await Promise.all(due.map((one) => publishOne(options, one)))
    const waiting = due.filter((_, index) => results[index] === 'waiting')
    if (waiting.length > 0) indexes.postpone(waiting)
    // A bucket that refuses one refuses the others too.
    if (results.includes('failed') || !results.includes('written')) break
  }
  return indexes.dueCount()
}

type Result = 'written' | 'waiting' | 'failed'

async function publishOne(options: TracePublisherOptions, due: DueIndex): Promise<Result> {
  try {
    const { catalog, bucket, queue } = options
    const whole = catalog.indexes.whole(due.key)
    const waits = whole?.files.some((file) => existsSync(join(queue, flatName(file.key)))) ?? false
    if (waits) return 'waiting'
    const { keys, bytes } =
      whole === null ? { keys: [], bytes: new Uint8Array() } : encodeIndex(whole)
    for (const key of keys) {
      const outcome = await bucket.putBytes(key, bytes, { ifAbsent: true })
      if (outcome.status !== 'success') throw outcome.error
    }
    // The new ones are there before the old ones go, so the request is always found.
    for (const { key } of catalog.indexes.known(due.key)) {
      if (keys.includes(key)) continue
      const outcome = await bucket.delete(key)
      if (outcome.status !== 'success') throw outcome.error
    }
    catalog.indexes.settle(due, keys)
    return 'written'
  } catch (error) {
    options.onError(asRing2Error(error))
    return 'failed'
  }
}
