/**
 * Uploads the files of the queue into the bucket, oldest first, and removes each when the bucket
 * has all of its bytes. Runs on the main thread; the drain workers put files into the queue.
 *
 * Invariants: a file leaves the queue only after the bucket has confirmed it; what a crash leaves
 * in the queue is uploaded after the next start; an error never drops a file, it only waits longer
 * (doubling, with jitter, up to a bound). One file that the bucket refuses does not hold up the
 * others. A file that was removed while it was uploaded is removed from the bucket, too. The queue's
 * own bound is the sink's.
 */

import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Outcome } from '../../collector/records.ts'
import { asRing2Error, type Ring2Error, retryable } from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import { flatName } from './keys.ts'
import type { ObjectStore, PutResult, StoredObject } from './object-store.ts'
import { forgetRemoved, isRemoved, queuedObjects, removedKeys } from './queued.ts'
import { type UploadFailure, uploadFailure } from './upload-failure.ts'

export interface UploaderOptions {
  readonly queue: string
  readonly bucket: ObjectStore
  /** Called at each failed attempt; the file stays. */
  readonly onError: (error: Ring2Error, key: string) => void
  readonly onUploaded?: (object: StoredObject) => void
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
  readonly pollMillis?: number
}

export interface UploaderStatus {
  readonly uploadedFiles: number
  readonly uploadedBytes: number
  readonly failedAttempts: number
  readonly failures: Readonly<Partial<Record<UploadFailure, number>>>
  /** In the queue when it was last looked at, less what was uploaded since. */
  readonly waitingFiles: number
  readonly waitingBytes: number
  /** Why the last attempt failed; null after one that succeeded, and when nothing waits. */
  readonly failing: Ring2Error | null
}

export interface Uploader {
  start(): void
  /** Tries to empty the queue now; resolves with the files that are left. */
  flush(timeoutMillis: number): Promise<number>
  /** Gives up the uploads in flight; what is left waits for the next start, which goes on there. */
  stop(): Promise<void>
  status(): UploaderStatus
}

/** How long to wait after failures in a row: doubled each time, with jitter, up to a bound. */
function createBackoff(options: UploaderOptions) {
  const least = options.retryMillisMin ?? uploadLimits.retryMillisMin
  const most = options.retryMillisMax ?? uploadLimits.retryMillisMax
  let failures = 0
  return {
    succeeded: () => {
      failures = 0
    },
    failed: () => {
      failures += 1
    },
    /** Null when nothing has failed. Jitter keeps several exporters from coming at one moment. */
    millis: () => {
      if (failures === 0) return null
      const doubled = Math.min(most, least * 2 ** Math.min(failures - 1, 30))
      return doubled * (0.5 + Math.random() / 2)
    },
  }
}

/** The passes over the queue; one at a time, whoever asks for it. */
function createPasses(options: UploaderOptions) {
  const backoff = createBackoff(options)
  const counts = { uploadedFiles: 0, uploadedBytes: 0, failedAttempts: 0 }
  const failures: Partial<Record<UploadFailure, number>> = {}
  const aborting = new AbortController()
  let waiting = { files: 0, bytes: 0 }
  let failing: Ring2Error | null = null
  let running: Promise<number> | null = null

  function noteFailure(error: Ring2Error, key: string): void {
    // Giving up because of the stop is no failure of the bucket.
    if (aborting.signal.aborted) return
    const reason = uploadFailure(error)
    counts.failedAttempts += 1
    failures[reason] = (failures[reason] ?? 0) + 1
    failing = error
    options.onError(error, key)
  }

  async function uploadOne(object: StoredObject): Promise<Outcome<PutResult>['status']> {
    const outcome = await upload(options, object, aborting.signal)
    if (outcome.status !== 'success') {
      // Deleted meanwhile, or uploaded by another exporter of the same queue.
      if (!existsSync(join(options.queue, flatName(object.key)))) return 'success'
      noteFailure(asRing2Error(outcome.error), object.key)
      return outcome.status
    }
    counts.uploadedFiles += 1
    counts.uploadedBytes += object.bytes
    waiting = { files: waiting.files - 1, bytes: waiting.bytes - object.bytes }
    options.onUploaded?.(object)
    return 'success'
  }

  /** What was uploaded by a process that ended before it could remove it again. */
  async function removeMarked(): Promise<void> {
    for (const key of await removedKeys(options.queue, uploadLimits.removedMillis)) {
      const outcome = await removeAgain(options, key)
      if (outcome.status !== 'success') noteFailure(asRing2Error(outcome.error), key)
    }
  }

  /** Stops where the bucket fails as a whole; returns the files left. */
  async function pass(): Promise<number> {
    await removeMarked()
    const objects = await queuedObjects(options.queue)
    waiting = { files: objects.length, bytes: sum(objects.map(({ bytes }) => bytes)) }
    const before = counts.failedAttempts
    for (let index = 0; index < objects.length; index += uploadLimits.filesInFlight) {
      if (aborting.signal.aborted) return waiting.files
      const batch = objects.slice(index, index + uploadLimits.filesInFlight)
      const done = await Promise.all(batch.map(uploadOne))
      if (done.includes('retryable')) break
    }
    if (counts.failedAttempts === before) {
      failing = null
      backoff.succeeded()
    } else {
      backoff.failed()
    }
    return waiting.files
  }

  function run(): Promise<number> {
    running ??= pass()
      .catch((error: unknown) => {
        backoff.failed()
        noteFailure(asRing2Error(error), options.queue)
        return 1
      })
      .finally(() => {
        running = null
      })
    return running
  }

  return {
    run,
    waitMillis: backoff.millis,
    status: () => ({
      ...counts,
      failures: { ...failures },
      waitingFiles: waiting.files,
      waitingBytes: waiting.bytes,
      failing,
    }),
    stop: async () => {
      aborting.abort()
      await running
    },
    stopped: () => aborting.signal.aborted,
  }
}

export function createUploader(options: UploaderOptions): Uploader {
  const passes = createPasses(options)
  const pollMillis = options.pollMillis ?? uploadLimits.pollMillis
  let timer: NodeJS.Timeout | null = null

  function schedule(millis: number): void {
    timer = setTimeout(() => {
      void passes.run().then(() => {
        if (!passes.stopped()) schedule(passes.waitMillis() ?? pollMillis)
      })
    }, millis)
    timer.unref()
  }

  async function flush(timeoutMillis: number): Promise<number> {
    const end = performance.now() + timeoutMillis
    for (;;) {
      const left = await orLate(passes.run(), end)
      // A bucket that does not answer must not hold up a stop.
      if (left === null) return passes.status().waitingFiles
      const rest = end - performance.now()
      if (left === 0 || rest <= 0) return left
      await sleep(Math.min(passes.waitMillis() ?? pollMillis, rest))
    }
  }

  return {
    start: () => schedule(0),
    flush,
    stop: async () => {
      if (timer !== null) clearTimeout(timer)
      await passes.stop()
    },
    status: passes.status,
  }
}

async function upload(
  options: UploaderOptions,
  object: StoredObject,
  signal: AbortSignal,
): Promise<Outcome<PutResult>> {
  const path = join(options.queue, flatName(object.key))
  try {
    const outcome = await options.bucket.put(object.key, path, { signal })
    if (outcome.status !== 'success') return outcome
    await rm(path, { force: true })
    if (!isRemoved(options.queue, object.key)) return outcome
    const removed = await removeAgain(options, object.key)
    return removed.status === 'success' ? outcome : removed
  } catch (error) {
    return retryable(asRing2Error(error))
  }
}

async function removeAgain(options: UploaderOptions, key: string): Promise<Outcome<void>> {
  const outcome = await options.bucket.delete(key)
  if (outcome.status === 'success') await forgetRemoved(options.queue, key)
  return outcome
}

/** Null when the time comes first. A time that has passed still lets a first attempt be made. */
async function orLate<T>(promise: Promise<T>, end: number): Promise<T | null> {
  const rest = end - performance.now()
  if (rest <= 0) return promise
  const late = new AbortController()
  try {
    return await Promise.race([promise, sleep(rest, null, { signal: late.signal })])
  } finally {
    late.abort()
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
