/**
 * Uploads the files of the queue into the bucket, oldest first, and removes each when the bucket
 * has all of its bytes. Runs on the main thread; the drain workers put files into the queue.
 *
 * Invariants: a file leaves the queue only after its upload was confirmed by its size; what a crash
 * leaves in the queue is uploaded after the next start; an error never drops a file, it only waits
 * longer (doubling, with jitter, up to a bound). The queue's own bound is the sink's.
 */

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { asRing2Error, type Ring2Error, storeError } from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import { flatName } from '../tensors/keys.ts'
import type { ObjectStore, StoredObject } from './object-store.ts'
import { queuedObjects } from './queued.ts'

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
  readonly lastError: Ring2Error | null
}

export interface Uploader {
  start(): void
  /** Tries to empty the queue now; resolves with the files that are left. */
  flush(timeoutMillis: number): Promise<number>
  /** Stops after the uploads in flight; what is left waits for the next start. */
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
  let lastError: Ring2Error | null = null
  let running: Promise<number> | null = null
  let stopping = false

  function noteFailure(error: Ring2Error, key: string): void {
    counts.failedAttempts += 1
    lastError = error
    options.onError(error, key)
  }

  async function uploadOne(object: StoredObject): Promise<boolean> {
    const error = await upload(options, object)
    if (error !== null) {
      noteFailure(error, object.key)
      return false
    }
    counts.uploadedFiles += 1
    counts.uploadedBytes += object.bytes
    options.onUploaded?.(object)
    return true
  }

  /** Stops at the first failures; returns the files left. */
  async function pass(): Promise<number> {
    const objects = await queuedObjects(options.queue)
    for (let index = 0; index < objects.length; index += uploadLimits.filesInFlight) {
      if (stopping) return objects.length - index
      const batch = objects.slice(index, index + uploadLimits.filesInFlight)
      const done = await Promise.all(batch.map(uploadOne))
      if (done.includes(false)) {
        backoff.failed()
        return objects.length - index - done.filter(Boolean).length
      }
      backoff.succeeded()
    }
    return 0
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
    status: () => ({ ...counts, lastError }),
    stop: async () => {
      stopping = true
      await running
    },
    stopped: () => stopping,
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
      const left = await passes.run()
      const rest = end - performance.now()
      if (left === 0 || rest <= 0) return left
      const wait = Math.min(passes.waitMillis() ?? pollMillis, rest)
      await new Promise((resolve) => setTimeout(resolve, wait))
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

async function upload(options: UploaderOptions, object: StoredObject): Promise<Ring2Error | null> {
  const { bucket, queue } = options
  const path = join(queue, flatName(object.key))
  try {
    const outcome = await bucket.put(object.key, path)
    if (outcome.status !== 'success') return asRing2Error(outcome.error)
    const stored = await bucket.size(object.key)
    if (stored !== object.bytes) {
      return storeError('upload', object.key, `the bucket holds ${stored} of ${object.bytes} bytes`)
    }
    await rm(path, { force: true })
    return null
  } catch (error) {
    return asRing2Error(error)
  }
}
