/**
 * A bounded queue of spans in front of an exporter that does not retry.
 *
 * A span stays queued until the Collector took it, refused it for good, or newer spans pushed it
 * out; the last two are counted as lost, by reason. One export is in flight at a time, so that
 * order is kept and a batch is never sent twice at once. The first failure and the recovery are
 * logged, and nothing between.
 *
 * Which answers may be tried again: OTLP specification, "OTLP/gRPC response".
 */

import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace'
import type { Logger } from '../logging.ts'
import { spanLimits } from './limits.ts'
import { createOutageLog, type OutageLog } from './outage-log.ts'
import { createSpanQueue, type SpanQueue } from './span-queue.ts'
import { within } from './within.ts'

export interface RetryingExporterOptions {
  readonly exporter: SpanExporter
  readonly logger: Logger
  readonly spansMax: number
  readonly bytesMax: number
  /** Pauses between tries; a test makes them short. */
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
}

export type SpanLoss = 'queue_full' | 'rejected' | 'shutdown'

export interface ExporterStatus {
  readonly delivered: number
  readonly lost: Readonly<Record<SpanLoss, number>>
  readonly pendingSpans: number
  /** Estimated. */
  readonly pendingBytes: number
  /** The error of the last try, when that failed; null when all is well. */
  readonly failing: string | null
}

export interface RetryingExporter {
  enqueue(span: ReadableSpan): void
  /** Tries at once, and resolves when nothing waits any more (true) or the time is over (false). */
  flush(timeoutMillis: number): Promise<boolean>
  /** Flushes, counts what is left as lost, and closes the exporter, all within the time. */
  shutdown(timeoutMillis: number): Promise<void>
  status(): ExporterStatus
}

interface State {
  readonly options: RetryingExporterOptions
  readonly queue: SpanQueue
  readonly outage: OutageLog
  readonly lost: Record<SpanLoss, number>
  delivered: number
  /** Halved while the Collector finds batches too large. */
  batchSpansMax: number
  /** The loop that exports, while it runs. */
  running: Promise<void> | null
  closed: boolean
  /** Ends the current pause. */
  wake: () => void
}

export function createRetryingExporter(options: RetryingExporterOptions): RetryingExporter {
  const state: State = {
    options,
    queue: createSpanQueue(options.spansMax, options.bytesMax),
    outage: createOutageLog(options.logger),
    lost: { queue_full: 0, rejected: 0, shutdown: 0 },
    delivered: 0,
    batchSpansMax: spanLimits.batchSpansMax,
    running: null,
    closed: false,
    wake: () => undefined,
  }
  const flush = async (timeoutMillis: number): Promise<boolean> => {
    start(state)
    state.wake()
    if (state.running !== null) await within(timeoutMillis, state.running)
    return state.queue.spans === 0
  }
  return {
    enqueue: (span) => {
      if (state.closed) {
        lose(state, 'shutdown', 1)
        return
      }
      lose(state, 'queue_full', state.queue.push(span))
      start(state)
    },
    flush,
    shutdown: async (timeoutMillis) => {
      if (state.closed) return
      const deadline = performance.now() + timeoutMillis
      await flush(timeoutMillis)
      state.closed = true
      state.wake()
      lose(state, 'shutdown', state.queue.clear())
      state.outage.end()
      await within(Math.max(0, deadline - performance.now()), options.exporter.shutdown())
    },
    status: () => ({
      delivered: state.delivered,
      lost: { ...state.lost },
      pendingSpans: state.queue.spans,
      pendingBytes: state.queue.bytes,
      failing: state.outage.error(),
    }),
  }
}

function lose(state: State, reason: SpanLoss, spans: number): void {
  if (spans === 0) return
  state.lost[reason] += spans
  state.outage.lost(reason, spans)
}

function start(state: State): void {
  if (state.running !== null || state.closed || state.queue.spans === 0) return
  state.running = run(state).finally(() => {
    state.running = null
    // A span may have come between the loop's last look and here.
    start(state)
  })
}

async function run(state: State): Promise<void> {
  // Spans of one tick go together, and the caller's tick ends first.
  await new Promise((resolve) => setImmediate(resolve))
  let failures = 0
  while (state.queue.spans > 0 && !state.closed) {
    const batch = state.queue.take(state.batchSpansMax, spanLimits.batchBytesMax)
    const error = await exportOnce(state.options.exporter, batch)
    // After a shutdown in the meantime these spans are counted as lost already.
    if (state.closed) return
    const retry = error !== null && handleFailure(state, batch.length, error)
    if (error === null) handleSuccess(state, batch.length)
    failures = retry ? failures + 1 : 0
    if (retry) await pause(state, failures)
  }
}

function handleSuccess(state: State, spans: number): void {
  state.queue.settle(true)
  state.delivered += spans
  state.batchSpansMax = Math.min(spanLimits.batchSpansMax, state.batchSpansMax * 2)
  state.outage.over(state.queue.spans)
}

/** @returns whether to wait before the next try. */
function handleFailure(state: State, spans: number, error: Error): boolean {
  const tooLarge = statusCode(error) === RESOURCE_EXHAUSTED && tooLargeText.test(error.message)
  if (tooLarge && spans > 1) {
    state.queue.settle(false)
    state.batchSpansMax = Math.ceil(spans / 2)
    return false
  }
  state.outage.failed(error)
  const retry = !tooLarge && isRetryable(error)
  state.queue.settle(!retry)
  if (!retry) lose(state, 'rejected', spans)
  return retry
}

function pause(state: State, failures: number): Promise<void> {
  const { retryMillisMin = spanLimits.retryMillisMin } = state.options
  const { retryMillisMax = spanLimits.retryMillisMax } = state.options
  const longest = Math.min(retryMillisMax, retryMillisMin * 2 ** Math.min(failures - 1, 30))
  return new Promise((resolve) => {
    // Jitter keeps many exporters from coming back in step.
    const timer = setTimeout(resolve, longest * (0.5 + Math.random() / 2))
    state.wake = () => {
      clearTimeout(timer)
      resolve()
    }
  })
}

/** @returns null when the Collector took the batch, else the error. */
async function exportOnce(
  exporter: SpanExporter,
  batch: readonly ReadableSpan[],
): Promise<Error | null> {
  try {
    // Attributes of the resource that are found asynchronously must be there before the first span.
    await batch[0]?.resource.waitForAsyncAttributes?.()
    return await new Promise<Error | null>((resolve) => {
      exporter.export([...batch], (result) => {
        resolve(result.code === 0 ? null : (result.error ?? new Error('no reason given')))
      })
    })
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

const RESOURCE_EXHAUSTED = 8
const tooLargeText = /larger than max|too large|message size/i
/** gRPC status codes that OTLP calls retryable. */
const retryableCodes = new Set([1, 4, RESOURCE_EXHAUSTED, 10, 11, 14, 15])

function statusCode(error: Error): number | null {
  return 'code' in error && typeof error.code === 'number' ? error.code : null
}

/** An error without a status never reached the Collector, so it may be tried again. */
function isRetryable(error: Error): boolean {
  const code = statusCode(error)
  return code === null || retryableCodes.has(code)
}
