/**
 * Keeps trace contexts and ended requests until they meet, within bounds on number and time.
 *
 * A request without a context of its own waits for one before it is handed on. When none comes it
 * goes on without, and is handed on once more, in the caller's trace, if the context comes later. A
 * context serves one request of each producer, so an id that is used again waits for its own.
 */
import {
  adopt,
  adoptStored,
  type CallerContext,
  isExactName,
  joinNames,
  overlaps,
  skewMicros,
  windowOf,
} from './contexts.ts'
import { createContextTable, type KeptContext } from './contexts-table.ts'
import { collectorLimits } from './limits.ts'
import type {
  ContextFault,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
  TraceOrigin,
} from './records.ts'

export interface ContextCounts {
  /** Requests that were handed on, by where their trace id came from. */
  readonly requests: Readonly<Record<TraceOrigin, number>>
  /** Contexts that came from elsewhere. */
  readonly received: number
  /** Contexts that were not taken, by reason. */
  readonly faults: Readonly<Partial<Record<ContextFault, number>>>
  /** Requests handed on once more because their context came late. */
  readonly late: number
  /** Requests whose clock disagrees with that of their parent span. */
  readonly skewed: number
  /** Requests that wait for a context now. */
  readonly waiting: number
}

export interface ContextJoin {
  /** A request begins: in the trace of a context that came before it, if one did. */
  begin(info: RequestInfo, producer: ProducerInfo): RequestInfo
  /** A request has ended. */
  end(summary: RequestSummary): void
  add(context: CallerContext): void
  /** Counts what was to be a context and is none. */
  reject(fault: ContextFault, count: number): void
  /** Hands on what has waited long enough, and forgets what is old. */
  turn(): void
  /** Hands on everything that waits: nothing more will come. */
  release(): void
  counts(): ContextCounts
}

export interface ContextJoinOptions {
  /** How long an ended request waits for its context; 0 when no contexts come. */
  readonly waitMillis: number
  /** A request is to be sent. */
  onReady(summary: RequestSummary): void
  /** A request that has ended belongs to another trace than its rows say. */
  onMoved(summary: RequestSummary, before: RequestInfo): void
  readonly now?: () => number
}

interface Waiting {
  readonly summary: RequestSummary
  readonly names: readonly string[]
  readonly untilMillis: number
}

/** Requests by the ids that a context may name, in the order in which they came. */
interface WaitingList {
  readonly size: number
  add(waiting: Waiting): void
  remove(waiting: Waiting): void
  named(name: string): readonly Waiting[]
  oldest(): Waiting | undefined
}

export function createContextJoin(options: ContextJoinOptions): ContextJoin {
  const now = options.now ?? (() => performance.now())
  const contexts = createContextTable()
  const held = createWaitingList()
  const sent = createWaitingList()
  const requests: Record<TraceOrigin, number> = { request: 0, tap: 0, request_id: 0, derived: 0 }
  const faults: Partial<Record<ContextFault, number>> = {}
  let received = 0
  let late = 0
  let skewed = 0

  /** The newest context that names the request and is not another one's. */
  function find(info: RequestInfo, producer: ProducerInfo, millis: number, endedAtMicros: number) {
    const window = { startedAtMicros: info.startedAtMicros, endedAtMicros }
    for (const name of joinNames(info.requestId)) {
      const fitting = contexts.named(name).findLast(({ context, atMillis, usedBy }) => {
        if ((usedBy.get(producer.boot) ?? info.key) !== info.key) return false
        // What came while the request ran is its own, also where the clocks disagree.
        return overlaps(context, window) || atMillis >= now() - millis
      })
      if (fitting !== undefined) return fitting
    }
    return null
  }

  function reject(fault: ContextFault, count: number): void {
    faults[fault] = (faults[fault] ?? 0) + count
  }

  function handOn(summary: RequestSummary): void {
    const { request } = summary
    requests[request.traceOrigin] += 1
    const { contextFault, parentWindow } = request
    if (contextFault !== undefined) reject(contextFault, 1)
    if (parentWindow !== undefined) {
      const distance = Math.abs(skewMicros(windowOf(summary), parentWindow))
      if (distance > collectorLimits.clockSkewMicros) skewed += 1
    }
    options.onReady(summary)
  }

  function take(summary: RequestSummary, kept: KeptContext): void {
    kept.usedBy.set(summary.producer.boot, summary.request.key)
    const adopted = adoptStored(summary, kept.context)
    if (adopted.request.traceId !== summary.request.traceId) {
      options.onMoved(adopted, summary.request)
    }
    handOn(adopted)
  }

  function goOnWithout(waiting: Waiting): void {
    held.remove(waiting)
    handOn(waiting.summary)
    sent.add({ ...waiting, untilMillis: now() + collectorLimits.contextLateMillis })
    if (sent.size > collectorLimits.contextLateMax) dropOldest(sent)
  }

  function takeLate(waiting: Waiting, kept: KeptContext): void {
    sent.remove(waiting)
    kept.usedBy.set(waiting.summary.producer.boot, waiting.summary.request.key)
    const { traceId, spanId } = waiting.summary.request
    const adopted = adoptStored(waiting.summary, kept.context)
    const request = { ...adopted.request, earlierSpan: { traceId, spanId } }
    late += 1
    options.onMoved({ ...adopted, request }, waiting.summary.request)
    options.onReady({ ...adopted, request })
  }

  function forgetOld(): void {
    contexts.forgetUntil(now() - collectorLimits.contextMillis)
    for (let first = sent.oldest(); first !== undefined; first = sent.oldest()) {
      if (first.untilMillis > now()) break
      sent.remove(first)
    }
  }

  return {
    begin(info, producer) {
      if (info.traceOrigin === 'request') return info
      // Nothing came while it ran: it has run for less than no time.
      const kept = find(info, producer, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY)
      if (kept === null) return info
      kept.usedBy.set(producer.boot, info.key)
      return adopt(info, kept.context)
    },
    end(summary) {
      const { request, producer } = summary
      const { traceOrigin } = request
      const window = windowOf(summary)
      const millis = (window.endedAtMicros - window.startedAtMicros) / 1000
      const kept = find(request, producer, millis, window.endedAtMicros)
      if (traceOrigin === 'request' || traceOrigin === 'tap') {
        handOn(withWindow(summary, kept?.context ?? null))
      } else if (kept !== null) take(summary, kept)
      else if (traceOrigin === 'request_id' || options.waitMillis === 0) handOn(summary)
      else {
        const names = joinNames(request.requestId)
        held.add({ summary, names, untilMillis: now() + options.waitMillis })
        if (held.size > collectorLimits.contextWaitingMax) {
          const oldest = held.oldest()
          if (oldest !== undefined) goOnWithout(oldest)
        }
      }
    },
    reject,
    add(context) {
      received += 1
      const kept = contexts.add(context, now())
      for (const waiting of chooseHeld(context, held)) {
        held.remove(waiting)
        take(waiting.summary, kept)
      }
      for (const waiting of chooseLate(context, sent, kept)) takeLate(waiting, kept)
    },
    turn() {
      for (let first = held.oldest(); first !== undefined; first = held.oldest()) {
        if (first.untilMillis > now()) break
        goOnWithout(first)
      }
      forgetOld()
    },
    release() {
      for (let first = held.oldest(); first !== undefined; first = held.oldest()) {
        goOnWithout(first)
      }
    },
    counts: () => ({
      requests: { ...requests },
      received,
      faults: { ...faults },
      late,
      skewed,
      waiting: held.size,
    }),
  }
}

/** The parent's times, when the context is that of the parent. */
function withWindow(summary: RequestSummary, context: CallerContext | null): RequestSummary {
  const { request } = summary
  if (context === null || request.parentWindow !== undefined) return summary
  if (context.traceId !== request.traceId || context.spanId !== request.parentSpanId) return summary
  const { startedAtMicros, endedAtMicros } = context
  return { ...summary, request: { ...request, parentWindow: { startedAtMicros, endedAtMicros } } }
}

/** Requests that ran when the span did; where none did, the clocks disagree, and all are meant. */
function chooseHeld(context: CallerContext, list: WaitingList): Waiting[] {
  const candidates = namedBy(context, list)
  const together = candidates.filter(({ summary }) => overlaps(context, windowOf(summary)))
  return onePerProducer(context, together.length > 0 ? together : candidates)
}

/** A request sent minutes ago is only meant when the times say so. */
function chooseLate(context: CallerContext, list: WaitingList, kept: KeptContext): Waiting[] {
  const candidates = namedBy(context, list).filter(
    ({ summary }) =>
      overlaps(context, windowOf(summary)) && !kept.usedBy.has(summary.producer.boot),
  )
  return onePerProducer(context, candidates)
}

/** By the most telling id that any request has; a request of just that id comes first. */
function namedBy(context: CallerContext, list: WaitingList): readonly Waiting[] {
  for (const id of context.requestIds) {
    const named = list.named(id)
    const exact = named.filter(({ summary }) => isExactName(id, summary.request.requestId))
    if (named.length > 0) return exact.length > 0 ? exact : named
  }
  return []
}

function onePerProducer(context: CallerContext, candidates: readonly Waiting[]): Waiting[] {
  const distance = ({ summary }: Waiting): number =>
    Math.abs(summary.endedAtMicros - context.endedAtMicros)
  const nearest = new Map<string, Waiting>()
  for (const waiting of candidates) {
    const { boot } = waiting.summary.producer
    const known = nearest.get(boot)
    if (known === undefined || distance(waiting) < distance(known)) nearest.set(boot, waiting)
  }
  return [...nearest.values()]
}

function dropOldest(list: WaitingList): void {
  const oldest = list.oldest()
  if (oldest !== undefined) list.remove(oldest)
}

function createWaitingList(): WaitingList {
  const all = new Set<Waiting>()
  const byName = new Map<string, Set<Waiting>>()
  return {
    get size() {
      return all.size
    },
    add(waiting) {
      all.add(waiting)
      for (const name of waiting.names) {
        const named = byName.get(name) ?? new Set()
        byName.set(name, named.add(waiting))
      }
    },
    remove(waiting) {
      all.delete(waiting)
      for (const name of waiting.names) {
        const named = byName.get(name)
        named?.delete(waiting)
        if (named?.size === 0) byName.delete(name)
      }
    },
    named: (name) => [...(byName.get(name) ?? [])],
    oldest: () => all.values().next().value,
  }
}
