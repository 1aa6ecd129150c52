/**
 * Delivers what a bounded queue holds, batch by batch, to an exporter that does not retry.
 *
 * A batch stays queued until the Collector took it or refused it for good, or the queue's bounds
 * pushed it out; what is lost is counted by reason. One batch is in flight at a time, so that order
 * is kept and nothing is sent twice at once. Pauses between tries grow, with jitter, or are what the
 * Collector asks for. It never throws and is never waited for. Spans and metrics share it; it knows
 * neither.
 */

import type { Logger } from '../logging.ts'
import { deliveryLimits } from './limits.ts'
import { createOutageLog, type OutageLog } from './outage-log.ts'
import { decideRetry, EncodingError } from './retry-decision.ts'
import { within } from './within.ts'

export type DeliveryLoss = 'queue_full' | 'rejected' | 'shutdown'

/** Items are spans or points. */
export interface DeliveryStatus {
  /** Items that the Collector took. */
  readonly delivered: number
  readonly lost: Readonly<Record<DeliveryLoss, number>>
  /** Items that wait, those in flight included, and their bytes. */
  readonly pending: number
  readonly pendingBytes: number
  /** Tries that failed. */
  readonly failures: number
  /** The error of the last try, when that failed; null when all is well. */
  readonly failing: string | null
}

/** What came of one try. */
export interface Receipt {
  /** Null when the Collector took the batch. */
  readonly error: Error | null
  /** Items of a taken batch that the Collector says it rejected (OTLP's partial success). */
  readonly rejected: number
}

export interface DeliveryQueue<Batch> {
  /** Items that wait, and their bytes. */
  readonly items: number
  readonly bytes: number
  /** The oldest batch, which is now in flight. */
  take(): Batch
  /** Ends the flight: the batch leaves the queue, or waits again. */
  settle(leave: boolean): void
  /** Empties the queue, and returns how many items it held. */
  clear(): number
}

export interface DeliveryOptions<Batch> {
  /** For the log. */
  readonly what: 'spans' | 'metrics'
  readonly logger: Logger
  readonly queue: DeliveryQueue<Batch>
  itemsOf(batch: Batch): number
  send(batch: Batch): Promise<Receipt>
  /** The batch is too large, or cannot all be encoded: whether the next `take` gives a smaller one. */
  shrink(batch: Batch): boolean
  /** The Collector took a batch. */
  taken?(): void
  /** Closes the connection. */
  close(): Promise<void>
  /** Pauses between tries; a test makes them short. */
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
}

export interface Delivery {
  /** Counts items that the queue's bounds pushed out. */
  lose(reason: DeliveryLoss, items: number): void
  /** Counts items that were not queued because they cannot be encoded. */
  refuse(error: EncodingError, items: number): void
  /** Something was queued. */
  start(): void
  /** Tries at once, and resolves when nothing waits any more (true) or the time is over (false). */
  flush(timeoutMillis: number): Promise<boolean>
  /** Flushes, counts what is left as lost, and closes, all within the time. */
  shutdown(timeoutMillis: number): Promise<void>
  readonly closed: boolean
  status(): DeliveryStatus
}

interface State<Batch> {
  readonly options: DeliveryOptions<Batch>
  readonly outage: OutageLog
  readonly lost: Record<DeliveryLoss, number>
  delivered: number
  failures: number
  /** The loop that sends, while it runs. */
  running: Promise<void> | null
  closed: boolean
  /** Ends the current pause. */
  wake: () => void
}

export function createDelivery<Batch>(options: DeliveryOptions<Batch>): Delivery {
  const { queue } = options
  const state: State<Batch> = {
    options,
    outage: createOutageLog(options.logger, options.what),
    lost: { queue_full: 0, rejected: 0, shutdown: 0 },
    delivered: 0,
    failures: 0,
    running: null,
    closed: false,
    wake: () => undefined,
  }
  const flush = async (timeoutMillis: number): Promise<boolean> => {
    start(state)
    state.wake()
    if (state.running !== null) await within(timeoutMillis, state.running)
    return queue.items === 0
  }
  return {
    lose: (reason, items) => lose(state, reason, items),
    refuse: (error, items) => refuse(state, error, items),
    start: () => start(state),
    flush,
    shutdown: async (timeoutMillis) => {
      if (state.closed) return
      const deadline = performance.now() + timeoutMillis
      await flush(timeoutMillis)
      state.closed = true
      state.wake()
      lose(state, 'shutdown', queue.clear())
      state.outage.end()
      await within(Math.max(0, deadline - performance.now()), options.close())
    },
    get closed() {
      return state.closed
    },
    status: () => ({
      delivered: state.delivered,
      lost: { ...state.lost },
      pending: queue.items,
      pendingBytes: queue.bytes,
      failures: state.failures,
      failing: state.outage.error(),
    }),
  }
}

function lose<Batch>(state: State<Batch>, reason: DeliveryLoss, items: number): void {
  if (items === 0) return
  state.lost[reason] += items
  state.outage.lost(reason, items)
}

function refuse<Batch>(state: State<Batch>, error: EncodingError, items: number): void {
  state.lost.rejected += items
  state.outage.unfit(error)
}

function start<Batch>(state: State<Batch>): void {
  if (state.running !== null || state.closed || state.options.queue.items === 0) return
  state.running = run(state).finally(() => {
    state.running = null
    // Something may have come between the loop's last look and here.
    start(state)
  })
}

async function run<Batch>(state: State<Batch>): Promise<void> {
  const { queue, itemsOf } = state.options
  // What comes in one tick goes together, and the caller's tick ends first.
  await new Promise((resolve) => setImmediate(resolve))
  let failures = 0
  while (queue.items > 0 && !state.closed) {
    const batch = queue.take()
    const { error, rejected } = await sendOnce(state.options, batch)
    // After a shutdown in the meantime these items are counted as lost already.
    if (state.closed) return
    if (error === null) {
      settleTaken(state, itemsOf(batch), rejected)
      failures = 0
      continue
    }
    state.failures += 1
    const pauseMillis = settleFailed(state, batch, error, failures + 1)
    failures = pauseMillis === null ? 0 : failures + 1
    if (pauseMillis !== null) await pause(state, pauseMillis)
  }
}

function settleTaken<Batch>(state: State<Batch>, items: number, rejected: number): void {
  const refused = Math.min(Math.max(0, rejected), items)
  state.options.queue.settle(true)
  state.options.taken?.()
  state.delivered += items - refused
  // First the recovery, so that the loss is not counted to an outage that is over.
  state.outage.over(state.options.queue.items)
  lose(state, 'rejected', refused)
}

/** @returns how long to wait before the next try; null goes on at once. */
function settleFailed<Batch>(
  state: State<Batch>,
  batch: Batch,
  error: Error,
  failures: number,
): number | null {
  const { queue, itemsOf, shrink } = state.options
  const decision = decideRetry(error, failures)
  if (decision.next === 'smaller' && shrink(batch)) {
    queue.settle(false)
    return null
  }
  if (error instanceof EncodingError) {
    queue.settle(true)
    refuse(state, error, itemsOf(batch))
    return null
  }
  state.outage.failed(error)
  const retry = decision.next === 'retry'
  queue.settle(!retry)
  if (retry) return Math.max(decision.afterMillis ?? 0, backoffMillis(state.options, failures))
  lose(state, 'rejected', itemsOf(batch))
  return null
}

function backoffMillis<Batch>(options: DeliveryOptions<Batch>, failures: number): number {
  const { retryMillisMin: least, retryMillisMax: most } = { ...deliveryLimits, ...options }
  const longest = Math.min(most, least * 2 ** Math.min(failures - 1, 30))
  // Jitter keeps many exporters from coming back in step.
  return longest * (0.5 + Math.random() / 2)
}

function pause<Batch>(state: State<Batch>, millis: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, millis)
    state.wake = () => {
      clearTimeout(timer)
      resolve()
    }
  })
}

async function sendOnce<Batch>(options: DeliveryOptions<Batch>, batch: Batch): Promise<Receipt> {
  try {
    return await options.send(batch)
  } catch (error) {
    return { error: error instanceof Error ? error : new Error(String(error)), rejected: 0 }
  }
}
