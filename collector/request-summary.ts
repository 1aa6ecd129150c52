/**
 * The summary of a request that has ended, from its parts: one for each process that ran a share of
 * the model, so one alone for a model in one process. Pure, but for the verdicts' count of baselines.
 *
 * What ranks hold of one tensor is merged by rank-statistics.ts; whatever cannot be merged exactly has
 * no value. Completeness is each part's own first: what its MODEL promised, counted by its steps.
 */
import type { ActiveRequest, PhaseState } from './active-request.ts'
import type { RequestEnd } from './bodies.ts'
import { judgeCompleteness } from './completeness.ts'
import type { Expectation } from './control-book.ts'
import { collectorLimits } from './limits.ts'
import { mergeStatistics } from './rank-statistics.ts'
import { isParallel, missingRanks, rankText } from './ranks.ts'
import type {
  Completeness,
  ModelInfo,
  ParallelInfo,
  Phase,
  PhaseStatistics,
  PhaseSummary,
  ProducerInfo,
  RequestSummary,
} from './records.ts'
import { summarize, summarizePhase } from './request-statistics.ts'
import { phaseEvidence } from './verdict.ts'
import type { Verdicts } from './verdicts.ts'

/** What one process saw of a request that has ended there. */
export interface RequestPart {
  readonly request: ActiveRequest
  readonly producer: ProducerInfo
  /** Null when it was given up. */
  readonly end: RequestEnd | null
  readonly endedAtMicros: number
  readonly expected: Expectation
}

/** @param parts never empty; the first one is the summary's producer. */
export function summarizeParts(
  parts: readonly [RequestPart, ...RequestPart[]],
  verdicts: Verdicts,
): RequestSummary {
  const [first] = parts
  const model = mergedModel(parts)
  const statistics = mergeStatistics(parts.map(({ request }) => request))
  const startedAtMicros = least(parts.map(({ request }) => request.info.startedAtMicros))
  const endedAtMicros = Math.max(...parts.map((part) => part.endedAtMicros), startedAtMicros)
  const tokens = most(parts.map(({ request }) => request.tokens))
  const phases = phaseSummaries(parts, endedAtMicros)
  const phaseStatistics: Partial<Record<Phase, PhaseStatistics>> = {}
  for (const { phase } of phases) phaseStatistics[phase] = summarizePhase(statistics, phase)
  const promptTokens = promptTokensOf(parts)
  const completeness = mergedCompleteness(parts)
  const summed = summarize(statistics)
  const judgement = verdicts.judge(model, {
    phases: phaseEvidence(phases, phaseStatistics),
    nonfinite: statistics.nan + statistics.posInf + statistics.negInf,
    measured: Object.keys(summed.globals).length + Object.keys(summed.layerSeries).length > 0,
    completeness,
    tokens,
    promptTokens,
    capture: capturedHooks(model, parts),
    layers: model.layers,
  })
  return {
    request: { ...first.request.info, startedAtMicros },
    model,
    producer: first.producer,
    endedAtMicros,
    tokens,
    promptTokens,
    steps: most(parts.map(({ request }) => request.steps)),
    phases,
    ...judgement,
    completeness,
    ...summed,
    phaseStatistics,
    nan: statistics.nan,
    posInf: statistics.posInf,
    negInf: statistics.negInf,
    tensorsStored: sum(parts.map(({ request }) => request.tensorsStored)),
    bytesStored: sum(parts.map(({ request }) => request.bytesStored)),
    ...parallelOf(parts),
  }
}

/** What the policies of its steps wanted of what the model's producer captures. */
function capturedHooks(
  model: ModelInfo,
  parts: readonly RequestPart[],
): Record<string, readonly number[]> {
  const policies = parts.flatMap(({ request, expected }) =>
    request.captured.flatMap(([sequence]) => expected.wantsOf(sequence) ?? []),
  )
  const captured: Record<string, readonly number[]> = {}
  for (const [hook, all] of Object.entries(model.hooks)) {
    const layers = all.filter((layer) => policies.some((wants) => wants(hook, layer)))
    if (layers.length > 0) captured[hook] = layers
  }
  return captured
}

function promptTokensOf(parts: readonly RequestPart[]): number {
  const announced = parts.map(({ end, request }) => end?.promptTokens ?? prefillEnd(request))
  return most(announced)
}

function prefillEnd(request: ActiveRequest): number {
  return request.phases.prefill?.tokenEnd ?? 0
}

/** Of several parts, all that any of them captures; its ranks are those of the parts. */
function mergedModel(parts: readonly [RequestPart, ...RequestPart[]]): ModelInfo {
  const [{ request }] = parts
  if (parts.length === 1 && !isParallel(request.model)) return request.model
  const { ranks: _, ...model } = request.model
  const hooks: Record<string, number[]> = {}
  for (const part of parts) {
    for (const [hook, layers] of Object.entries(part.request.model.hooks)) {
      const all = new Set([...(hooks[hook] ?? []), ...layers])
      hooks[hook] = [...all].sort((left, right) => left - right)
    }
  }
  return { ...model, hooks }
}

function parallelOf(parts: readonly RequestPart[]): { parallel?: ParallelInfo } {
  const [first] = parts
  const world = first?.request.model.world
  if (first === undefined || world === undefined || !isParallel(first.request.model)) return {}
  return {
    parallel: {
      world,
      parts: parts.map((part) => ({
        producer: part.producer,
        ranks: part.request.model.ranks ?? { tp: 0, pp: 0, dp: 0, ep: 0 },
        steps: part.request.steps,
        completeness: partCompleteness(part).state,
      })),
    },
  }
}

function partCompleteness({ request, end, expected }: RequestPart): Completeness {
  const stepsLeftOut = request.leftOut + (end?.stepsLeftOut ?? 0)
  const doubts = [...request.doubts, ...(stepsLeftOut > 0 ? [] : request.gaps)]
  const announced = end?.tokens ?? 0
  if (end !== null && announced > request.tokens && stepsLeftOut === 0) {
    doubts.push(`${request.tokens} of ${announced} tokens were announced`)
  }
  if (end !== null && end.outcome !== 'ok') doubts.push(`the request ended with ${end.outcome}`)
  return judgeCompleteness({
    model: request.model,
    captured: request.captured,
    stepsAnnounced: end === null || end.steps === null ? null : end.steps - request.leftOut,
    stepsLeftOut,
    seen: request.statistics.seen,
    expected,
    kept: request.kept,
    losses: request.losses,
    doubts,
  })
}

/**
 * Complete is what every rank has whole. A rank that never came makes it incomplete, and so does one
 * that saw fewer steps than another: all ranks run every forward pass.
 */
function mergedCompleteness(parts: readonly [RequestPart, ...RequestPart[]]): Completeness {
  const own = parts.map((part) => partCompleteness(part))
  const [{ request }] = parts
  const [only] = own
  if (!isParallel(request.model) && only !== undefined) return only
  const steps = most(parts.map((part) => part.request.steps))
  const missing = missingRanks(
    request.model,
    parts.map((part) => part.request.model),
  ).map((rank) => `rank ${rank} never came`)
  const leftOut = parts.some(
    ({ request: { leftOut: own }, end }) => own + (end?.stepsLeftOut ?? 0) > 0,
  )
  for (const part of parts) {
    const behind = steps - part.request.steps
    // A policy that was replaced meanwhile reached each rank at a step of its own.
    if (behind > 0 && !leftOut)
      missing.push(`rank ${textOf(part)}: ${behind} of ${steps} steps missing`)
  }
  const reasons = parts.flatMap((part, index) =>
    (own[index]?.reasons ?? []).map((reason) => `rank ${textOf(part)}: ${reason}`),
  )
  const states = own.map(({ state }) => state)
  const lost = missing.length > 0 || states.includes('incomplete')
  return {
    state: lost ? 'incomplete' : (order.find((state) => states.includes(state)) ?? 'complete'),
    expected: sum(own.map(({ expected }) => expected)),
    seen: sum(own.map(({ seen }) => seen)),
    reasons: [...missing, ...reasons].slice(0, collectorLimits.reasonsMax),
  }
}

/** Of several parts, what one of them is says of all. */
const order = ['unknown', 'sampled'] as const

function textOf({ request }: RequestPart): string {
  return rankText(request.model.ranks)
}

/** A phase ends where the next one begins, or with the request: a STEP marks the start of a step. */
function phaseSummaries(parts: readonly RequestPart[], endedAtMicros: number): PhaseSummary[] {
  const prefill = mergedPhase(parts.flatMap(({ request }) => request.phases.prefill ?? []))
  const decode = mergedPhase(parts.flatMap(({ request }) => request.phases.decode ?? []))
  const summaries: PhaseSummary[] = []
  if (prefill !== null) {
    summaries.push({
      phase: 'prefill',
      ...prefill,
      endedAtMicros: decode?.startedAtMicros ?? endedAtMicros,
    })
  }
  if (decode !== null) summaries.push({ phase: 'decode', ...decode, endedAtMicros })
  return summaries
}

function mergedPhase(phases: readonly PhaseState[]): PhaseState | null {
  if (phases.length === 0) return null
  return {
    startedAtMicros: least(phases.map((one) => one.startedAtMicros)),
    endedAtMicros: most(phases.map((one) => one.endedAtMicros)),
    tokenStart: least(phases.map((one) => one.tokenStart)),
    tokenEnd: most(phases.map((one) => one.tokenEnd)),
    steps: most(phases.map((one) => one.steps)),
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function most(values: readonly number[]): number {
  return Math.max(...values)
}

function least(values: readonly number[]): number {
  return Math.min(...values)
}
