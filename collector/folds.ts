/**
 * One native fold per model, and the traces that exemplars name. JavaScript reads folded points when
 * metrics are collected; it never sees a single sample.
 */
import { hooks } from './hooks.gen.ts'
import { TRACE_FLAG_SAMPLED } from './ids.ts'
import { constants, counts as countsLayout, point as pointLayout } from './layout.gen.ts'
import { collectorLimits } from './limits.ts'
import { createFold, type NativeFold } from './native.ts'
import type {
  ElementCounts,
  ExemplarPoint,
  HistogramPoint,
  ModelPoints,
  Phase,
  RequestInfo,
} from './records.ts'
import { type Words, words } from './words.ts'

/** Name of the fold that models beyond the bound share. */
export const OTHER_MODELS = 'other_models'

export interface FoldBook {
  /** The fold of a model, made when it is first asked for; beyond the bound, that of the others. */
  of(model: string): NativeFold
  /** A number that stands for a request in every segment, as ring2_slice.request_key. */
  keyOf(request: RequestInfo): number
  /** Exemplars of the request name its new trace from now on, those taken before too. */
  moved(before: RequestInfo, now: RequestInfo): void
  read(): ModelPoints[]
  destroy(): void
}

const hookNames = new Map(hooks.map((hook) => [hook.id, hook.name]))

/** A request that exemplars name; its trace may become another one. */
interface NamedRequest {
  readonly name: string
  info: RequestInfo
}

interface KeptExemplar {
  readonly value: number
  readonly request: NamedRequest
  readonly atMicros: number
}

interface ModelFold {
  readonly fold: NativeFold
  /** Last exemplar of each series, kept until a newer one comes. Series are only ever added. */
  readonly exemplars: KeptExemplar[]
}

export function createFoldBook(): FoldBook {
  const folds = new Map<string, ModelFold>()
  const requests = new Map<number, NamedRequest>()
  const keys = new Map<string, number>()
  let next = 1

  function fold(model: string): ModelFold {
    const known = folds.get(model)
    if (known !== undefined) return known
    if (folds.size >= collectorLimits.modelsMax && model !== OTHER_MODELS) return fold(OTHER_MODELS)
    const made = { fold: createFold(), exemplars: [] }
    folds.set(model, made)
    return made
  }

  return {
    of: (model) => fold(model).fold,
    keyOf(request) {
      const name = nameOf(request)
      const known = keys.get(name)
      if (known !== undefined) return known
      const key = next++
      keys.set(name, key)
      requests.set(key, { name, info: request })
      if (requests.size > collectorLimits.exemplarRequestsMax) forgetOldest(requests, keys)
      return key
    },
    moved(before, now) {
      const named = requests.get(keys.get(nameOf(before)) ?? 0)
      if (named !== undefined) named.info = now
    },
    read: () => Array.from(folds, ([model, entry]) => readModel(model, entry, requests)),
    destroy() {
      for (const entry of folds.values()) entry.fold.destroy()
      folds.clear()
    },
  }
}

/** The span id is derived from trace and request id, so it names the request everywhere. */
function nameOf(request: RequestInfo): string {
  return `${request.traceId}${request.spanId}`
}

function forgetOldest(requests: Map<number, NamedRequest>, keys: Map<string, number>): void {
  const oldest = requests.entries().next().value
  if (oldest === undefined) return
  requests.delete(oldest[0])
  keys.delete(oldest[1].name)
}

function readModel(
  model: string,
  { fold, exemplars }: ModelFold,
  requests: ReadonlyMap<number, NamedRequest>,
): ModelPoints {
  const series = fold.read(null, 0)
  const points = new Uint8Array(series * pointLayout.bytes)
  const read = Math.min(fold.read(points, series), series)
  const pointWords = words(points)
  const hookLayers = fold.counts(null, 0)
  const counts = new Uint8Array(hookLayers * countsLayout.bytes)
  const counted = Math.min(fold.counts(counts, hookLayers), hookLayers)
  const countWords = words(counts)
  const elements = Array.from({ length: counted }, (_, index) =>
    readCounts(countWords, index * countsLayout.bytes),
  )
  return {
    model,
    // What native code refused is its one entry of no hook.
    refused: elements.find((entry) => entry.hook === '')?.elements ?? 0,
    histograms: Array.from({ length: read }, (_, index) => {
      const base = index * pointLayout.bytes
      const request = requests.get(pointWords.u64(base + pointLayout.exemplarKey))
      if (request !== undefined) exemplars[index] = readExemplar(pointWords, base, request)
      return readPoint(pointWords, base, exemplars[index])
    }),
    elements: elements.filter((entry) => entry.hook !== ''),
  }
}

function readPoint(
  source: Words,
  base: number,
  exemplar: KeptExemplar | undefined,
): HistogramPoint {
  const isPrefill = source.u32(base + pointLayout.phase) === constants.phasePrefill
  const last = base + pointLayout.buckets + 8 * source.u32(base + pointLayout.bucketCount)
  // An array without a place that was ever empty crosses threads three times as fast.
  const buckets: number[] = []
  for (let bucket = base + pointLayout.buckets; bucket < last; bucket += 8) {
    buckets.push(source.u64(bucket))
  }
  const histogram = {
    signal: source.u32(base + pointLayout.signal),
    hook: hookNames.get(source.u32(base + pointLayout.hook)) ?? '',
    layer: source.i32(base + pointLayout.layer),
    phase: (isPrefill ? 'prefill' : 'decode') as Phase,
    count: source.u64(base + pointLayout.count),
    zeroCount: source.u64(base + pointLayout.zeroCount),
    sum: source.f64(base + pointLayout.sum),
    min: source.f64(base + pointLayout.min),
    max: source.f64(base + pointLayout.max),
    scale: source.i32(base + pointLayout.scale),
    offset: source.i32(base + pointLayout.offset),
    buckets,
  }
  return exemplar === undefined
    ? histogram
    : Object.assign(histogram, { exemplar: exemplarPoint(exemplar) })
}

function readExemplar(source: Words, base: number, request: NamedRequest): KeptExemplar {
  return {
    value: source.f64(base + pointLayout.exemplarValue),
    request,
    atMicros: source.micros(base + pointLayout.exemplarRealtimeNs),
  }
}

function exemplarPoint({ value, request, atMicros }: KeptExemplar): ExemplarPoint {
  const { traceId, spanId, requestId, traceFlags } = request.info
  const sampled = (traceFlags & TRACE_FLAG_SAMPLED) !== 0
  return { value, traceId, spanId, requestId, sampled, atMicros }
}

function readCounts(source: Words, base: number): ElementCounts {
  const at = (field: number): number => base + field
  return {
    hook: hookNames.get(source.u32(at(countsLayout.hook))) ?? '',
    layer: source.i32(at(countsLayout.layer)),
    elements: source.u64(at(countsLayout.elements)),
    nan: source.u64(at(countsLayout.nan)),
    positiveInfinity: source.u64(at(countsLayout.posInf)),
    negativeInfinity: source.u64(at(countsLayout.negInf)),
    invalidRows: source.u64(at(countsLayout.invalidRows)),
    skippedRows: source.u64(at(countsLayout.skippedRows)),
    massive: source.u64(at(countsLayout.massive)),
  }
}
