/**
 * The main thread's side of the drain worker: starts it, hands on what it reports, stops it in order.
 */
import { hostname } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { BaselineBook, CapturePolicy, RequestSummary } from '../../collector/index.ts'
import type { Config } from '../config.ts'
import type { Logger } from '../logging.ts'
import type { StoreLocation } from '../store/location.ts'
import { emptySnapshot, type MetricSnapshot } from '../telemetry/metric-points.ts'
import { pipelineLimits } from './limits.ts'
import type { ContextBatch, WorkerCommand, WorkerOptions, WorkerReport } from './messages.ts'

export interface Pipeline {
  /** The last snapshot that came. */
  latest(): MetricSnapshot
  /** Asks for a new snapshot; the last one when the worker is too busy to answer in time. */
  refresh(): Promise<MetricSnapshot>
  /** Baselines for the requests that end from now on. */
  setBaselines(book: BaselineBook): void
  /** What is wanted from now on. */
  setPolicy(policy: CapturePolicy): void
  /** Hands on trace contexts that came from elsewhere. */
  addContexts(batch: ContextBatch): void
  /** Why the worker has ended, when it should not have. */
  defect(): Error | null
  /** Drains, flushes and ends the worker; names the segments whose data stays in the ring. */
  stop(): Promise<readonly string[]>
}

export interface PipelineOptions {
  readonly config: Config
  readonly location: StoreLocation
  readonly logger: Logger
  /** Those in force at the start. */
  readonly baselines: BaselineBook
  readonly policy: CapturePolicy
  onRequestEnd(summary: RequestSummary): void
  /** The worker ended without being asked to. */
  onDefect(error: Error): void
}

function workerOptions({ config, location, baselines, policy }: PipelineOptions): WorkerOptions {
  const { store, segments, capture, telemetry, drain, limits } = config
  return {
    segmentsDirectory: segments.directory,
    segmentNames: segments.names,
    ...policy,
    redactHooks: capture.redact_hooks,
    redactAttributes: capture.redact_attributes,
    statistics: capture.statistics,
    verdictRules: config.verdict.rules,
    baselines,
    location,
    fsync: store.fsync,
    queueBytesMax: store.spool_bytes_max,
    codecs: store.codecs,
    host: hostname(),
    flushMillis: store.flush_seconds * 1000,
    flushBytes: store.flush_bytes,
    intervalMillis: drain.interval_ms,
    batchSlices: drain.batch_records,
    batchBytes: drain.batch_bytes,
    requestsMax: limits.requests_max,
    requestIdleMicros: limits.request_idle_seconds * 1e6,
    contextWaitMillis: telemetry.tap ? telemetry.tap_wait_seconds * 1000 : 0,
  }
}

export async function startPipeline(options: PipelineOptions): Promise<Pipeline> {
  const { logger } = options
  const worker = new Worker(join(import.meta.dirname, 'drain-worker.ts'), {
    workerData: workerOptions(options),
    name: 'ring2-drain',
  })
  let latest = emptySnapshot(Date.now() * 1000)
  let defect: Error | null = null
  let nextId = 1
  const waiting = new Map<number, (snapshot: MetricSnapshot) => void>()
  const send = (command: WorkerCommand): void => worker.postMessage(command)
  const ready = Promise.withResolvers<void>()
  const stopped = Promise.withResolvers<readonly string[]>()
  let stopping = false

  worker.on('message', (message: WorkerReport) => {
    switch (message.type) {
      case 'ready':
        ready.resolve()
        break
      case 'request_end':
        options.onRequestEnd(message.summary)
        break
      case 'event':
        logger[message.event.level](message.event.facts, message.event.message)
        break
      case 'snapshot':
        latest = message.snapshot
        waiting.get(message.id)?.(latest)
        waiting.delete(message.id)
        break
      case 'stopped':
        stopped.resolve(message.unflushed)
        break
    }
  })
  function fail(error: Error): void {
    if (defect !== null || stopping) return
    defect = error
    ready.reject(error)
    stopped.resolve([])
    options.onDefect(error)
  }
  worker.on('error', (cause) => fail(cause instanceof Error ? cause : new Error(String(cause))))
  worker.on('exit', (code) => {
    stopped.resolve([])
    fail(new Error(`the drain worker ended with code ${code}`))
  })
  await ready.promise

  function refresh(): Promise<MetricSnapshot> {
    if (defect !== null || stopping) return Promise.resolve(latest)
    const id = nextId++
    const { promise, resolve } = Promise.withResolvers<MetricSnapshot>()
    waiting.set(id, resolve)
    setTimeout(() => {
      if (waiting.delete(id)) resolve(latest)
    }, pipelineLimits.snapshotWaitMillis).unref()
    send({ type: 'snapshot', id })
    return promise
  }

  const timer = setInterval(() => {
    // One question at a time: a busy worker must not find a heap of them.
    if (waiting.size === 0) void refresh()
  }, pipelineLimits.snapshotMillis)

  return {
    latest: () => latest,
    refresh,
    setPolicy(policy) {
      if (defect === null && !stopping) send({ type: 'policy', policy })
    },
    setBaselines(book) {
      if (defect === null && !stopping) send({ type: 'baselines', book })
    },
    addContexts(batch) {
      if (defect === null && !stopping) send({ type: 'contexts', batch })
    },
    defect: () => defect,
    async stop() {
      if (stopping) return stopped.promise
      stopping = true
      clearInterval(timer)
      send({ type: 'stop', flushMillis: pipelineLimits.stopMillis })
      const unflushed = await stopped.promise
      await worker.terminate()
      return unflushed
    },
  }
}
