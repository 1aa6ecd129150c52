/**
 * The segments that one worker drains: found, taken, drained in turn, forgotten when they have ended.
 * A segment that cannot be taken or drained is reported once, left alone, and tried again later.
 */

import { hooks } from '../../collector/hooks.gen.ts'
import {
  type BaselineBook,
  type CapturePolicy,
  collectorLimits,
  contextFaults,
  createAttributeRedaction,
  createContextJoin,
  createFoldBook,
  createRankJoin,
  createSlices,
  createVerdicts,
  type DrainEvent,
  findSegments,
  openDrain,
  planCapture,
  planGroups,
  type RequestSummary,
  Ring2Error,
  type SegmentDrain,
  type SegmentInfo,
  settleOrphans,
} from '../../collector/index.ts'
import type { LossReason, MetricSnapshot, SegmentPoints } from '../telemetry/metric-points.ts'
import { type ClosableTensorSink, createTensorSink } from '../tensors/tensor-sink.ts'
import { pipelineLimits } from './limits.ts'
import type { ContextBatch, WorkerOptions } from './messages.ts'
import { createMovedRequests } from './moved-requests.ts'
import { createRequestCounts } from './request-counts.ts'
import { clearSpool } from './spool-leftovers.ts'

export interface SegmentSet {
  /** Looks for new segments. */
  discover(): void
  /** One batch of each segment; the slices taken. */
  turn(): number
  addContexts(batch: ContextBatch): void
  /** Baselines for the requests that end from now on. */
  setBaselines(book: BaselineBook): void
  /** What is wanted from now on, in every segment. */
  setPolicy(policy: CapturePolicy): void
  /** Drains what is there now, flushes, and gives everything back. */
  stop(untilMillis: number): Stopped
  snapshot(): MetricSnapshot
}

export interface Stopped {
  /** Segments whose data could not be stored: it stays in their rings. */
  readonly unflushed: readonly string[]
  readonly last: MetricSnapshot
}

export interface SegmentSetEvents {
  onRequestEnd(summary: RequestSummary): void
  onEvent(event: DrainEvent): void
}

interface Held {
  readonly drain: SegmentDrain
  readonly sink: ClosableTensorSink
}

export function createSegmentSet(options: WorkerOptions, events: SegmentSetEvents): SegmentSet {
  let plan = planCapture(options)
  const groups = planGroups(options.statistics)
  const redacted = new Set(namedHooks(options.redactHooks ?? []))
  const redactRequest = createAttributeRedaction(options.redactAttributes ?? [])
  const folds = createFoldBook()
  const slices = createSlices(options.batchSlices)
  const held = new Map<string, Held>()
  const refused = new Map<string, number>()
  const ended = new Map<string, { points: SegmentPoints; atMillis: number }>()
  const requests = createRequestCounts()
  const verdicts = createVerdicts({
    rules: options.verdictRules,
    statistics: options.statistics,
    book: options.baselines,
  })
  const store = { rows: 0, bytes: 0, files: 0, failures: 0 }
  const startedAtMicros = Date.now() * 1000
  const moved = createMovedRequests(options, events.onEvent)
  const contexts = createContextJoin({
    waitMillis: options.contextWaitMillis,
    onReady: events.onRequestEnd,
    onMoved(summary, before) {
      folds.moved(before, summary.request)
      // Every rank's rows lie under the trace that they were stored with.
      const parts = summary.parallel?.parts ?? [summary]
      for (const { producer } of parts) moved.add({ ...summary, producer })
    },
  })
  const ranks = createRankJoin({ verdicts, onEvent: events.onEvent })
  let settled = false
  let spoolDueMillis = 0

  function take(path: string): void {
    const retryAt = refused.get(path)
    if (retryAt !== undefined && performance.now() < retryAt) return
    if (held.size >= collectorLimits.segmentsMax) {
      refuse(path, new Error(`already draining ${held.size} segments, the most at once`))
      return
    }
    const sink = countingSink(createTensorSink(options), store)
    try {
      const drain = openDrain({
        ...options,
        path,
        plan,
        groups,
        sink,
        verdicts,
        ranks,
        folds,
        slices,
        stateDirectory: options.location.spool,
        redacted,
        onBegin: (request, producer) => contexts.begin(redactRequest(request), producer),
        onModel: (model) => requests.know(model.name),
        onEnd(summary) {
          requests.count(summary)
          contexts.end(summary)
        },
        onEvent: events.onEvent,
      })
      held.set(path, { drain, sink })
      refused.delete(path)
      events.onEvent({
        level: 'info',
        message: 'draining a segment',
        facts: { segment: drain.producer.segment, producer_pid: drain.producer.pid },
      })
    } catch (error) {
      sink.close()
      refuse(path, error)
    }
  }

  function settle(): void {
    settled = true
    const sink = createTensorSink(options)
    settleOrphans({
      stateDirectory: options.location.spool,
      segmentsDirectory: options.segmentsDirectory,
      host: options.host,
      sink,
      verdicts,
      fsync: options.fsync,
      onEnd(summary) {
        requests.count(summary)
        contexts.end(summary)
      },
      onEvent: events.onEvent,
    })
    sink.close()
  }

  function clear(): void {
    const now = performance.now()
    if (now < spoolDueMillis) return
    spoolDueMillis = now + pipelineLimits.spoolMillis
    const { spool } = options.location
    const sink = createTensorSink(options)
    try {
      const files = clearSpool(spool, sink)
      if (files === 0) return
      const facts = { spool, files }
      events.onEvent({ level: 'info', message: 'removed unfinished files of the spool', facts })
    } catch (error) {
      const facts = { spool, error: String(error) }
      events.onEvent({ level: 'warn', message: 'could not look through the spool', facts })
    } finally {
      sink.close()
    }
  }

  function refuse(path: string, error: unknown): void {
    const known = refused.has(path)
    refused.set(path, performance.now() + pipelineLimits.refusedRetryMillis)
    if (known) return
    events.onEvent({
      level: 'error',
      message: 'cannot drain a segment',
      facts: { path, error: error instanceof Ring2Error ? error.toJSON() : String(error) },
    })
  }

  function forget(path: string, { drain, sink }: Held): void {
    held.delete(path)
    store.failures += drain.failures()
    sink.close()
  }

  function end(path: string, entry: Held, points: SegmentPoints): void {
    forget(path, entry)
    ended.set(path, { points, atMillis: performance.now() })
    if (ended.size > pipelineLimits.endedSegmentsMax) {
      ended.delete(ended.keys().next().value as string)
    }
    events.onEvent({
      level: 'info',
      message: 'a segment has ended and was drained to the end',
      facts: { segment: points.segment, records: points.committedRecords },
    })
  }

  function turnOf(path: string, entry: Held): number {
    try {
      const { slices: taken, last } = entry.drain.turn()
      if (last !== null) end(path, entry, segmentPoints(last, 0))
      return taken
    } catch (error) {
      entry.drain.close()
      forget(path, entry)
      refuse(path, error)
      return 0
    }
  }

  function turn(): number {
    let count = 0
    for (const [path, entry] of [...held]) count += turnOf(path, entry)
    ranks.turn()
    contexts.turn()
    moved.turn()
    return count
  }

  function snapshot(): MetricSnapshot {
    const now = performance.now()
    for (const [path, { atMillis }] of ended) {
      if (now - atMillis > pipelineLimits.endedSegmentMillis) ended.delete(path)
    }
    const drains = Array.from(held.values(), ({ drain }) => drain)
    const pending = Array.from(held.values(), ({ sink }) => sink.pending())
    return {
      startedAtMicros,
      takenAtMicros: Date.now() * 1000,
      models: folds.read(),
      segments: [
        ...drains.map((drain) => segmentPoints(drain.info(), drain.lagSeconds())),
        ...[...ended].filter(([path]) => !held.has(path)).map(([, { points }]) => points),
      ],
      requests: requests.list(),
      uncalibrated: verdicts.unused(),
      activeRequests: sum(drains.map((drain) => drain.activeRequests())),
      contexts: contexts.counts(),
      store: {
        ...store,
        failures: store.failures + sum(drains.map((drain) => drain.failures())),
        failing: drains.some((drain) => drain.isFailing()),
        pendingRows: sum(pending.map(({ rows }) => rows)),
        pendingBytes: sum(pending.map(({ bytes }) => bytes)),
      },
    }
  }

  return {
    discover() {
      if (!settled) settle()
      clear()
      const paths = findSegments(options.segmentsDirectory, options.segmentNames)
      for (const path of paths) if (!held.has(path)) take(path)
      for (const path of refused.keys()) if (!paths.includes(path)) refused.delete(path)
    },
    turn,
    setBaselines: verdicts.setBook,
    setPolicy(policy) {
      plan = planCapture(policy)
      for (const { drain } of held.values()) drain.setPlan(plan)
    },
    addContexts(batch) {
      for (const context of batch.contexts) contexts.add(context)
      for (const fault of contextFaults) contexts.reject(fault, batch.faults[fault] ?? 0)
    },
    stop(untilMillis) {
      while (performance.now() < untilMillis && turn() > 0) {
        // Takes what is in the rings now; a producer that goes on is not waited for.
      }
      const unflushed = Array.from(held.values(), ({ drain }) => drain)
        .filter((drain) => drain.flush().status !== 'success')
        .map((drain) => drain.producer.segment)
      contexts.release()
      moved.close()
      const last = snapshot()
      for (const [path, entry] of [...held]) {
        entry.drain.close()
        forget(path, entry)
      }
      folds.destroy()
      return { unflushed, last }
    },
    snapshot,
  }
}

/** Names of hooks; `all` stands for every one. */
function namedHooks(names: readonly string[]): readonly string[] {
  return names.includes('all') ? hooks.map(({ name }) => name) : names
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/** Counts rows and bytes once their files are named in a checkpoint and published. */
function countingSink(
  sink: ClosableTensorSink,
  store: { rows: number; bytes: number; files: number },
): ClosableTensorSink {
  return {
    ...sink,
    prepare(producer) {
      const { rows, bytes } = sink.pending()
      const outcome = sink.prepare(producer)
      if (outcome.status === 'success') {
        store.rows += rows
        store.bytes += bytes
        store.files += outcome.value.length
      }
      return outcome
    },
  }
}

function segmentPoints(info: SegmentInfo, lagSeconds: number): SegmentPoints {
  return {
    segment: info.segment,
    startedAtMicros: info.createdAtMicros,
    committedRecords: info.committedRecords,
    committedBytes: info.committedBytes,
    losses: info.losses.map((loss) => ({ ...loss, reason: loss.reason as LossReason })),
    payloadUsedBytes: info.payloadUsed,
    payloadLimitBytes: info.payloadBytes,
    metaUsedRecords: info.metaUsed,
    metaLimitRecords: info.metaSlots,
    lagSeconds,
  }
}
