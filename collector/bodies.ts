/**
 * Reads the bodies of MODEL, REQUEST, REQUEST_END, VOCABULARY, STEP and GAP records.
 *
 * They come from another process: every field is checked, and a wrong one gives a reason in words
 * instead of a value.
 */
import {
  deriveSpanId,
  deriveTraceId,
  parseTraceparent,
  parseTraceRequestId,
  traceparentFault,
} from './ids.ts'
import { constants, gap as gapLayout, stepHeader, stepRow } from './layout.gen.ts'
import { collectorLimits } from './limits.ts'
import type {
  AttributeValue,
  ModelInfo,
  Phase,
  Ranks,
  RequestInfo,
  VocabularyPart,
} from './records.ts'
import { decodeLosses, type LossCount } from './segments.ts'
import { type Words, words } from './words.ts'

export type Parsed<T> =
  | { readonly ok: true; readonly value: T; readonly warning?: string }
  | { readonly ok: false; readonly reason: string }

export interface StepRow {
  readonly requestKey: number
  readonly tokenStart: number
  readonly tokenEnd: number
  readonly phase: Phase
}

export interface RequestEnd {
  readonly key: number
  readonly steps: number | null
  readonly tokens: number | null
  readonly promptTokens: number | null
  /** Steps that the policy did not want; left out by older exporters. */
  readonly stepsLeftOut?: number
  readonly outcome: string
}

const decoder = new TextDecoder('utf-8', { fatal: true })

function fail(reason: string): { ok: false; reason: string } {
  return { ok: false, reason }
}

function parseObject(body: Uint8Array): Parsed<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(decoder.decode(body))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return fail('no JSON object')
    }
    return { ok: true, value: value as Record<string, unknown> }
  } catch {
    return fail('no JSON in UTF-8')
  }
}

function text(value: unknown, fallback: string): string {
  return typeof value === 'string'
    ? value.slice(0, collectorLimits.attributeCharactersMax)
    : fallback
}

function count(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null
}

export function parseModel(body: Uint8Array): Parsed<ModelInfo> {
  const parsed = parseObject(body)
  if (!parsed.ok) return parsed
  const facts = parsed.value
  const name = text(facts.name, '')
  if (name === '') return fail('MODEL without a name')
  const hooks: Record<string, number[]> = {}
  for (const [hook, layers] of Object.entries((facts.hooks as object | undefined) ?? {})) {
    if (!Array.isArray(layers)) return fail(`MODEL hook ${hook} without a list of layers`)
    hooks[hook] = layers.filter((layer): layer is number => Number.isInteger(layer))
  }
  const fingerprint = fingerprintOf(facts.vocabulary_fingerprint)
  const place = placeOf(facts.ranks, facts.world)
  return {
    ok: true,
    ...(place === null ? { warning: 'its ranks contradict its world, so they are not used' } : {}),
    value: {
      name,
      revision: text(facts.revision, ''),
      engine: text(facts.engine, 'unknown'),
      dtype: text(facts.dtype, 'unknown'),
      layers: count(facts.layers) ?? 0,
      heads: count(facts.heads) ?? 0,
      kvHeads: count(facts.kv_heads) ?? 0,
      hidden: count(facts.hidden) ?? 0,
      vocabulary: count(facts.vocabulary) ?? 0,
      ...(fingerprint === null ? {} : { vocabularyFingerprint: fingerprint }),
      hooks,
      ...computedOf(facts.computed),
      ...shardsOf(facts.shards),
      ...place,
    },
  }
}

function computedOf(value: unknown): Pick<ModelInfo, 'computed'> {
  const names = Array.isArray(value) ? value.filter((name) => typeof name === 'string') : []
  return names.length === 0 ? {} : { computed: names.slice(0, constants.hooksMax) }
}

function shardsOf(value: unknown): Pick<ModelInfo, 'shards'> {
  const shards = count(value) ?? 1
  return shards > 1 && shards <= collectorLimits.ranksMax ? { shards } : {}
}

/**
 * Ranks and world of a parallel model; null where they contradict each other: then the process is
 * taken for one of its own, and its requests are not joined with others.
 */
function placeOf(ranks: unknown, world: unknown): Pick<ModelInfo, 'ranks' | 'world'> | null {
  if (ranks === undefined && world === undefined) return {}
  const sizes = axesOf(world, 1)
  const own = axesOf(ranks, 0)
  if (sizes === null || own === null) return null
  const axes = ['tp', 'pp', 'dp'] as const
  const fits = axes.every((axis) => sizes[axis] >= 1 && own[axis] < sizes[axis])
  return fits ? { ranks: own, world: sizes } : null
}

function axesOf(value: unknown, fallback: number): Ranks | null {
  if (typeof value !== 'object' || value === null) return null
  const axis = (name: string): number => {
    const size = Object.hasOwn(value, name) ? count(Reflect.get(value, name)) : fallback
    return size !== null && size <= collectorLimits.ranksMax ? size : -1
  }
  const axes = { tp: axis('tp'), pp: axis('pp'), dp: axis('dp'), ep: axis('ep') }
  return Object.values(axes).some((size) => size < 0) ? null : axes
}

/** A SHA-256 in hexadecimal, or null. */
function fingerprintOf(value: unknown): string | null {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value) ? value : null
}

export function parseVocabulary(body: Uint8Array): Parsed<VocabularyPart> {
  const parsed = parseObject(body)
  if (!parsed.ok) return parsed
  const facts = parsed.value
  const model = text(facts.model, '')
  if (model === '') return fail('VOCABULARY without a model')
  const fingerprint = fingerprintOf(facts.fingerprint)
  if (fingerprint === null) return fail('VOCABULARY without a SHA-256 as its fingerprint')
  const parts = count(facts.parts) ?? 0
  const part = count(facts.part)
  if (parts < 1 || parts > collectorLimits.vocabularyPartsMax || part === null || part >= parts) {
    return fail(`VOCABULARY part ${facts.part} of ${facts.parts}`)
  }
  const firstId = count(facts.first_id)
  if (firstId === null) return fail('VOCABULARY without a first_id')
  const { texts } = facts
  if (!Array.isArray(texts) || texts.some((one) => one !== null && typeof one !== 'string')) {
    return fail('VOCABULARY without a list of texts')
  }
  return { ok: true, value: { model, fingerprint, parts, part, firstId, texts } }
}

/** Used until a MODEL record has come: its completeness is never known. */
export const unknownModel: ModelInfo = {
  name: 'unknown',
  revision: '',
  engine: 'unknown',
  dtype: 'unknown',
  layers: 0,
  heads: 0,
  kvHeads: 0,
  hidden: 0,
  vocabulary: 0,
  hooks: {},
}

function readAttributes(value: unknown): Record<string, AttributeValue> {
  const attributes: Record<string, AttributeValue> = {}
  if (typeof value !== 'object' || value === null) return attributes
  for (const [key, entry] of Object.entries(value).slice(0, collectorLimits.requestAttributesMax)) {
    if (typeof entry === 'string') attributes[key] = text(entry, '')
    else if (typeof entry === 'boolean') attributes[key] = entry
    else if (typeof entry === 'number' && Number.isFinite(entry)) attributes[key] = entry
  }
  return attributes
}

/**
 * Identity of a request, from the best source of trace context there is. A `traceparent` that is
 * malformed is named, and the next source is taken.
 */
export function identify(
  key: number,
  requestId: string,
  traceparent: string | null,
  rest: Pick<RequestInfo, 'traceState' | 'attributes' | 'startedAtMicros'>,
): RequestInfo {
  const fromHeader = traceparent === null ? null : parseTraceparent(traceparent)
  const parent = fromHeader ?? parseTraceRequestId(requestId)
  const traceId = parent?.traceId ?? deriveTraceId(requestId)
  const malformed = traceparent !== null && fromHeader === null
  return {
    key,
    requestId,
    traceId,
    spanId: deriveSpanId(traceId, requestId, 'request'),
    parentSpanId: parent?.parentSpanId ?? null,
    traceFlags: parent?.flags ?? 1,
    traceOrigin: fromHeader !== null ? 'request' : parent !== null ? 'request_id' : 'derived',
    ...rest,
    ...(malformed ? { contextFault: traceparentFault(traceparent) } : {}),
  }
}

/** Absent, null and empty mean that the caller had no context; anything else is meant as one. */
function traceparentOf(value: unknown): string | null {
  if (value === undefined || value === null || value === '') return null
  return typeof value === 'string' ? value : 'not a text'
}

/** A start that lies far from the record's own time is no time at all. */
function startedAt(nanoseconds: unknown, capturedAtMicros: number): number {
  // As text, because a number does not hold the nanoseconds of today exactly.
  const text = typeof nanoseconds === 'string' ? nanoseconds : ''
  const micros = /^\d{4,}$/.test(text) ? Number(text.slice(0, -3)) : Number.NaN
  const distance = Math.abs(micros - capturedAtMicros)
  return distance <= collectorLimits.requestStartMicrosMax ? micros : capturedAtMicros
}

export function parseRequest(body: Uint8Array, capturedAtMicros: number): Parsed<RequestInfo> {
  const parsed = parseObject(body)
  if (!parsed.ok) return parsed
  const facts = parsed.value
  const key = count(facts.key)
  if (key === null || key === 0) return fail('REQUEST without a key')
  const requestId = text(facts.request_id, '')
  if (requestId === '') return fail('REQUEST without a request_id')
  return {
    ok: true,
    value: identify(key, requestId, traceparentOf(facts.traceparent), {
      traceState: typeof facts.tracestate === 'string' ? text(facts.tracestate, '') : null,
      attributes: readAttributes(facts.attributes),
      startedAtMicros: startedAt(facts.started_realtime_ns, capturedAtMicros),
    }),
  }
}

export function parseRequestEnd(body: Uint8Array): Parsed<RequestEnd> {
  const parsed = parseObject(body)
  if (!parsed.ok) return parsed
  const key = count(parsed.value.key)
  if (key === null || key === 0) return fail('REQUEST_END without a key')
  return {
    ok: true,
    value: {
      key,
      steps: count(parsed.value.steps),
      tokens: count(parsed.value.tokens),
      promptTokens: count(parsed.value.prompt_tokens),
      stepsLeftOut: count(parsed.value.steps_left_out) ?? 0,
      outcome: text(parsed.value.outcome, 'unknown'),
    },
  }
}

export interface Step {
  readonly step: number
  /** Of the control words it was captured by; 0: not known. */
  readonly sequence: number
  /** Beside the forward's own: its tensors are samples, and nobody expects them. */
  readonly extra: boolean
  /** Announced before: of tensors that come late. */
  readonly again: boolean
  readonly rows: readonly StepRow[]
}

/** A STEP body that native code has already validated. */
export function readStep(body: Uint8Array): Step {
  const source = words(body)
  const flags = body[stepHeader.flags] ?? 0
  return {
    step: source.i64(stepHeader.step),
    sequence: source.u32(stepHeader.controlSequence),
    extra: (flags & constants.stepExtra) !== 0,
    again: (flags & constants.stepAgain) !== 0,
    rows: readStepRows(source),
  }
}

function readStepRows(source: Words): StepRow[] {
  const rows: StepRow[] = []
  for (let index = 0; index < source.u32(stepHeader.rowCount); index++) {
    const base = stepHeader.bytes + index * stepRow.bytes
    const phase = source.bytes[base + stepRow.phase]
    rows.push({
      requestKey: source.u64(base + stepRow.requestKey),
      tokenStart: source.i32(base + stepRow.tokenStart),
      tokenEnd: source.i32(base + stepRow.tokenEnd),
      phase: phase === constants.phasePrefill ? 'prefill' : 'decode',
    })
  }
  return rows
}

/** Losses that a GAP body announces. */
export function readGap(body: Uint8Array): LossCount[] {
  return decodeLosses(words(body), gapLayout.losses)
}
