/**
 * The requests of one segment: which trace each belongs to, which tokens it has processed, what came.
 *
 * Bounded: the request not heard of for longest is given up first, and says so in its summary. Its
 * state goes into checkpoints, so that a restarted exporter finishes what an earlier one began.
 */
import { identify, type RequestEnd, type StepRow, unknownModel } from './bodies.ts'
import { judgeCompleteness } from './completeness.ts'
import { deriveSpanId } from './ids.ts'
import { collectorLimits } from './limits.ts'
import type {
  ModelInfo,
  Phase,
  PhaseStatistics,
  PhaseSummary,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
} from './records.ts'
import {
  addSlice,
  countSlice,
  createStatistics,
  type MeasuredSlice,
  type RequestStatistics,
  restoreStatistics,
  type StoredStatistics,
  storeStatistics,
  summarize,
  summarizePhase,
} from './request-statistics.ts'
import type { LossCount } from './segments.ts'
import { phaseEvidence } from './verdict.ts'
import type { Verdicts } from './verdicts.ts'

interface PhaseState {
  startedAtMicros: number
  endedAtMicros: number
  tokenStart: number
  tokenEnd: number
  steps: number
}

/** A request that has not ended. */
export interface ActiveRequest {
  info: RequestInfo
  model: ModelInfo
  readonly phases: Partial<Record<Phase, PhaseState>>
  readonly statistics: RequestStatistics
  steps: number
  tokens: number
  lastSeenMicros: number
  tensorsStored: number
  bytesStored: number
  readonly losses: string[]
  readonly doubts: string[]
}

export interface SliceFacts extends MeasuredSlice {
  readonly nan: number
  readonly posInf: number
  readonly negInf: number
  /** Bytes that go to the store; null when the tensor is not stored. */
  readonly storedBytes: number | null
  readonly capturedAtMicros: number
}

export interface RequestRegistry {
  model(): ModelInfo
  setModel(model: ModelInfo): void
  begin(info: RequestInfo): void
  step(row: StepRow, atMicros: number): void
  find(key: number): ActiveRequest | undefined
  addSlice(request: ActiveRequest, slice: SliceFacts): void
  /** A GAP: every request that is active may have lost part of it. */
  gap(losses: readonly LossCount[]): void
  end(end: RequestEnd, atMicros: number): void
  /** Gives up what has been idle too long, or everything when the producer is gone. */
  giveUp(nowMicros: number, producerGone: boolean): void
  active(): number
  store(): StoredRegistry
  restore(stored: StoredRegistry): void
}

export interface StoredRegistry {
  readonly model: ModelInfo
  readonly requests: readonly (Omit<ActiveRequest, 'statistics'> & {
    readonly statistics: StoredStatistics
  })[]
}

export interface RegistryOptions {
  readonly producer: ProducerInfo
  /** Hooks that policy drops altogether. */
  readonly unwanted: ReadonlySet<string>
  readonly verdicts: Verdicts
  readonly requestsMax: number
  /** A request without a record for this long is given up. */
  readonly requestIdleMicros: number
  onEnd(summary: RequestSummary): void
}

export function createRegistry(options: RegistryOptions): RequestRegistry {
  const requests = new Map<number, ActiveRequest>()
  const idsUsed = new Map<string, number>()
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
    const summary = summarizeRequest(request, end, atMicros, options)
    options.onEnd(summary)
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
      if (known === undefined) activate(distinct(info), info.startedAtMicros, [])
      else known.info = info
    },
    step(row, atMicros) {
      const request =
        requests.get(row.requestKey) ??
        activate(lostRequest(row.requestKey, atMicros, options.producer), atMicros, [
          'its REQUEST record never came',
        ])
      requests.delete(row.requestKey)
      requests.set(row.requestKey, request)
      if (isUnknown(request.model)) request.model = model
      takeStep(request, row, atMicros)
    },
    find: (key) => requests.get(key),
    addSlice(request, slice) {
      const { statistics } = request
      request.lastSeenMicros = slice.capturedAtMicros
      countSlice(statistics, slice.hook, slice.layer)
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
    store: () => ({
      model,
      requests: Array.from(requests.values(), (request) => ({
        ...request,
        statistics: storeStatistics(request.statistics),
      })),
    }),
    restore(stored) {
      model = stored.model
      for (const request of stored.requests) {
        const restored = { ...request, statistics: restoreStatistics(request.statistics) }
        requests.set(request.info.key, restored)
        if (request.statistics.phases === undefined) {
          note(restored.doubts, 'its first part was measured by an older exporter')
        }
      }
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

function takeStep(request: ActiveRequest, row: StepRow, atMicros: number): void {
  if (row.tokenStart > request.tokens && request.steps > 0) {
    note(request.doubts, `tokens ${request.tokens} to ${row.tokenStart} were never announced`)
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

/** A phase ends where the next one begins, or with the request: a STEP marks the start of a step. */
function phaseSummaries(request: ActiveRequest, endedAtMicros: number): PhaseSummary[] {
  const { prefill, decode } = request.phases
  const summaries: PhaseSummary[] = []
  if (prefill !== undefined) {
    summaries.push({
      phase: 'prefill',
      ...prefill,
      endedAtMicros: decode?.startedAtMicros ?? endedAtMicros,
    })
  }
  if (decode !== undefined) summaries.push({ phase: 'decode', ...decode, endedAtMicros })
  return summaries
}

function summarizeRequest(
  request: ActiveRequest,
  end: RequestEnd | null,
  atMicros: number,
  options: RegistryOptions,
): RequestSummary {
  const { statistics } = request
  const endedAtMicros = Math.max(atMicros, request.info.startedAtMicros)
  const doubts = [...request.doubts]
  if (end !== null && end.tokens !== null && end.tokens > request.tokens) {
    doubts.push(`${request.tokens} of ${end.tokens} tokens were announced`)
  }
  if (end !== null && end.outcome !== 'ok') doubts.push(`the request ended with ${end.outcome}`)
  const completeness = judgeCompleteness({
    model: request.model,
    steps: request.steps,
    stepsAnnounced: end?.steps ?? null,
    seen: statistics.seen,
    unwanted: options.unwanted,
    losses: request.losses,
    doubts,
  })
  const nonfinite = statistics.nan + statistics.posInf + statistics.negInf
  const { tokens, model } = request
  const phases = phaseSummaries(request, endedAtMicros)
  const phaseStatistics: Partial<Record<Phase, PhaseStatistics>> = {}
  for (const { phase } of phases) phaseStatistics[phase] = summarizePhase(statistics, phase)
  const promptTokens = end?.promptTokens ?? request.phases.prefill?.tokenEnd ?? 0
  const summed = summarize(statistics)
  const judgement = options.verdicts.judge(model, {
    phases: phaseEvidence(phases, phaseStatistics),
    nonfinite,
    measured: Object.keys(summed.globals).length + Object.keys(summed.layerSeries).length > 0,
    completeness,
    tokens,
    promptTokens,
    capture: Object.fromEntries(
      Object.entries(model.hooks).filter(([hook]) => !options.unwanted.has(hook)),
    ),
    layers: model.layers,
  })
  return {
    request: request.info,
    model,
    producer: options.producer,
    endedAtMicros,
    tokens,
    promptTokens,
    steps: request.steps,
    phases,
    ...judgement,
    completeness,
    ...summed,
    phaseStatistics,
    nan: statistics.nan,
    posInf: statistics.posInf,
    negInf: statistics.negInf,
    tensorsStored: request.tensorsStored,
    bytesStored: request.bytesStored,
  }
}
