/**
 * The requests of one segment: which trace each belongs to, which tokens it has processed, what came.
 *
 * Bounded: the request not heard of for longest is given up first, and says so in its summary. Its
 * state goes into checkpoints, so that a restarted exporter finishes what an earlier one began.
 */
import type { ActiveRequest } from './active-request.ts'
import { identify, type RequestEnd, type StepRow, unknownModel } from './bodies.ts'
import type { Expectation } from './control-book.ts'
import {
  createHeldParts,
  restoreRequest,
  type StoredParts,
  type StoredRequest,
  storeRequest,
} from './held-parts.ts'
import { deriveSpanId } from './ids.ts'
import { collectorLimits } from './limits.ts'
import type { RankJoin } from './rank-join.ts'
import type { ModelInfo, ProducerInfo, RequestInfo, RequestSummary } from './records.ts'
import { addSlice, countSlice, createStatistics, type MeasuredSlice } from './request-statistics.ts'
import type { LossCount } from './segments.ts'
import type { Verdicts } from './verdicts.ts'

export interface SliceFacts extends MeasuredSlice {
  readonly nan: number
  readonly posInf: number
  readonly negInf: number
  /** Bytes that go to the store; null when the tensor is not stored. */
  readonly storedBytes: number | null
  readonly capturedAtMicros: number
  /** Of a step that nobody counts on. */
  readonly extra?: boolean
}

export interface RequestRegistry {
  model(): ModelInfo
  setModel(model: ModelInfo): void
  begin(info: RequestInfo): void
  /** @param sequence of the control words that it was captured by; 0: not known. */
  step(row: StepRow, atMicros: number, sequence?: number): void
  /** A step of a request that nobody wants, from a producer that does not ask. */
  leaveOut(row: StepRow, atMicros: number): void
  find(key: number): ActiveRequest | undefined
  addSlice(request: ActiveRequest, slice: SliceFacts): void
  /** A GAP: every request that is active may have lost part of it. */
  gap(losses: readonly LossCount[]): void
  end(end: RequestEnd, atMicros: number): void
  /** Gives up what has been idle too long, or everything when the producer is gone. */
  giveUp(nowMicros: number, producerGone: boolean): void
  active(): number
  /** Requests that have ended here and wait for other ranks: until then the segment is kept. */
  unsettled(): number
  /** Whether the checkpoint holds a part that is dropped since. */
  changed(): boolean
  /** The checkpoint holds what `store` gave. */
  saved(): void
  store(): StoredRegistry
  restore(stored: StoredRegistry): void
}

export interface StoredRegistry {
  readonly model: ModelInfo
  readonly requests: readonly StoredRequest[]
  /** Left out by older exporters. */
  readonly ranks?: StoredParts
}

export interface RegistryOptions {
  readonly producer: ProducerInfo
  readonly expected: Expectation
  readonly verdicts: Verdicts
  readonly requestsMax: number
  /** A request without a record for this long is given up. */
  readonly requestIdleMicros: number
  /** Where parts of a request meet; left out, those of each rank are told of apart. */
  readonly ranks?: RankJoin
  /** A request has ended in this segment; it is told of when all ranks have theirs. */
  onLeave?(info: RequestInfo): void
  onEnd(summary: RequestSummary): void
}

export function createRegistry(options: RegistryOptions): RequestRegistry {
  const requests = new Map<number, ActiveRequest>()
  const idsUsed = new Map<string, number>()
  const parts = createHeldParts(options)
  let model: ModelInfo = unknownModel

  function activate(info: RequestInfo, atMicros: number, doubts: string[]): ActiveRequest {
    // Within a batch the bound may be passed, so that the tensors of the batch find their requests.
    if (requests.size >= collectorLimits.requestsOvershoot * options.requestsMax) evictOldest()
    const request: ActiveRequest = {
      info,
      model,
      phases: {},
      statistics: createStatistics(),
      steps: 0,
      tokens: 0,
      lastSeenMicros: atMicros,
      tensorsStored: 0,
      bytesStored: 0,
      losses: [],
      doubts,
      captured: [],
      leftOut: 0,
      gaps: [],
      kept: [],
    }
    requests.set(info.key, request)
    return request
  }

  /**
   * A request id that comes again in one trace means another request: it is told apart by a number,
   * or the tensors of both would be taken for one.
   */
  function distinct(info: RequestInfo): RequestInfo {
    const name = `${info.traceId} ${info.requestId}`
    const uses = (idsUsed.get(name) ?? 0) + 1
    idsUsed.delete(name)
    idsUsed.set(name, uses)
    if (idsUsed.size > collectorLimits.exemplarRequestsMax) {
      idsUsed.delete(idsUsed.keys().next().value as string)
    }
    if (uses === 1) return info
    const requestId = `${info.requestId}~${uses}`
    return { ...info, requestId, spanId: deriveSpanId(info.traceId, requestId, 'request') }
  }

  /** All ranks of a model have a request in one trace. */
  function joined(info: RequestInfo): RequestInfo {
    return options.ranks?.begin(info, model, options.producer) ?? info
  }

  function evictOldest(): void {
    // Steps move a request to the end, so the first one has been without a step for longest.
    const oldest = requests.values().next().value
    if (oldest !== undefined) abandon(oldest, 'given up: too many requests at once')
  }

  function abandon(request: ActiveRequest, why: string): void {
    note(request.doubts, why)
    finish(request, null, request.lastSeenMicros)
  }

  function finish(request: ActiveRequest, end: RequestEnd | null, atMicros: number): void {
    requests.delete(request.info.key)
    options.onLeave?.(request.info)
    // What nobody wanted of it appears nowhere.
    if (request.steps > 0 || request.leftOut === 0) parts.finish(request, end, atMicros)
  }

  return {
    model: () => model,
    setModel(next) {
      model = next
      // The same model, announced again because its vocabulary is known now.
      for (const request of requests.values()) {
        if (request.model.name === next.name) request.model = next
      }
    },
    begin(info) {
      const known = requests.get(info.key)
      if (known === undefined) activate(joined(distinct(info)), info.startedAtMicros, [])
      else known.info = joined(info)
    },
    leaveOut(row, atMicros) {
      const request = requests.get(row.requestKey)
      if (request === undefined) return
      request.leftOut += 1
      request.lastSeenMicros = atMicros
    },
    step(row, atMicros, sequence = 0) {
      const request =
        requests.get(row.requestKey) ??
        activate(lostRequest(row.requestKey, atMicros, options.producer), atMicros, [
          'its REQUEST record never came',
        ])
      requests.delete(row.requestKey)
      requests.set(row.requestKey, request)
      if (isUnknown(request.model)) request.model = model
      takeStep(request, row, atMicros, sequence)
    },
    find: (key) => requests.get(key),
    addSlice(request, slice) {
      const { statistics } = request
      request.lastSeenMicros = slice.capturedAtMicros
      if (slice.extra !== true) countSlice(statistics, slice.hook, slice.layer)
      addSlice(statistics, slice)
      statistics.nan += slice.nan
      statistics.posInf += slice.posInf
      // A logit of −Inf is a token the model was told not to take, and a masked score is one too.
      const masked = slice.hook === 'final_logits' || slice.hook === 'attn_scores'
      if (!masked) statistics.negInf += slice.negInf
      if (slice.storedBytes === null) return
      request.tensorsStored += 1
      request.bytesStored += slice.storedBytes
    },
    gap(losses) {
      for (const loss of losses) {
        for (const request of requests.values()) {
          note(request.losses, `the producer lost ${loss.records} records (${loss.reason})`)
        }
      }
    },
    end(end, atMicros) {
      const request = requests.get(end.key)
      if (request !== undefined) finish(request, end, atMicros)
    },
    giveUp(nowMicros, producerGone) {
      while (requests.size > options.requestsMax) evictOldest()
      for (const request of [...requests.values()]) {
        if (producerGone) abandon(request, 'the producer ended before the request did')
        else if (nowMicros - request.lastSeenMicros > options.requestIdleMicros) {
          abandon(request, 'given up: nothing came for too long')
        }
      }
    },
    active: () => requests.size,
    unsettled: parts.unsettled,
    changed: parts.changed,
    saved: parts.saved,
    store: () => ({
      model,
      requests: Array.from(requests.values(), storeRequest),
      ranks: parts.store(),
    }),
    restore(stored) {
      model = stored.model
      for (const request of stored.requests) {
        const restored = restoreRequest(request)
        restored.info = joined(restored.info)
        requests.set(request.info.key, restored)
        if (request.statistics.phases === undefined) {
          note(restored.doubts, 'its first part was measured by an older exporter')
        }
      }
      if (stored.ranks !== undefined) parts.restore(stored.ranks)
    },
  }
}

/** By name, because a model that went through a checkpoint is another object. */
function isUnknown(model: ModelInfo): boolean {
  return model.name === unknownModel.name && Object.keys(model.hooks).length === 0
}

function note(list: string[], text: string): void {
  if (list.length < collectorLimits.reasonsMax && !list.includes(text)) list.push(text)
}

/** Stands for a request whose REQUEST record was lost, so that its tensors keep a name. */
function lostRequest(key: number, atMicros: number, producer: ProducerInfo): RequestInfo {
  return identify(key, `lost-${producer.boot}-${key}`, null, {
    traceState: null,
    attributes: {},
    startedAtMicros: atMicros,
  })
}

function takeStep(request: ActiveRequest, row: StepRow, atMicros: number, sequence: number): void {
  if (row.tokenStart > request.tokens && request.steps > 0) {
    note(request.gaps, `tokens ${request.tokens} to ${row.tokenStart} were never announced`)
  }
  const policy = request.captured.at(-1)
  if (policy?.[0] === sequence) policy[1] += 1
  else request.captured.push([sequence, 1])
  const range = request.kept.at(-1)
  if (range !== undefined && row.tokenStart <= range[1]) range[1] = Math.max(range[1], row.tokenEnd)
  else if (request.kept.length < collectorLimits.keptRangesMax) {
    request.kept.push([row.tokenStart, row.tokenEnd])
  }
  request.steps += 1
  request.tokens = Math.max(request.tokens, row.tokenEnd)
  request.lastSeenMicros = atMicros
  const phase = request.phases[row.phase]
  if (phase === undefined) {
    request.phases[row.phase] = {
      startedAtMicros: atMicros,
      endedAtMicros: atMicros,
      tokenStart: row.tokenStart,
      tokenEnd: row.tokenEnd,
      steps: 1,
    }
    return
  }
  phase.endedAtMicros = atMicros
  phase.tokenStart = Math.min(phase.tokenStart, row.tokenStart)
  phase.tokenEnd = Math.max(phase.tokenEnd, row.tokenEnd)
  phase.steps += 1
}
