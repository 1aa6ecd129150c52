/**
 * A capture as rows and a summary: one request and one trace for each file. Pure but for checksums.
 *
 * Ids come from the file's fingerprint, so that importing it again, anywhere, makes the same ones.
 * The n-th packet of a module is step n; its entries follow those of the packet before.
 */

import { deriveSpanId, deriveTraceId } from '../../collector/ids.ts'
import { crc32c, createAttributeRedaction, withoutPayload } from '../../collector/index.ts'
import type {
  AttributeValue,
  ModelInfo,
  PhaseSummary,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
  TensorRow,
} from '../../collector/records.ts'
import { importLimits } from '../limits.ts'
import type { ModuleFacts, StreamSurvey } from './stream-survey.ts'
import type { TokenFile } from './token-file.ts'

export interface CaptureOptions {
  readonly survey: StreamSurvey
  readonly model: string
  /** Null: derived from the request id, as for any request without a trace. */
  readonly traceId: string | null
  readonly dtype: string
  readonly tokens: TokenFile | null
  /** As `capture.redact_hooks` and `capture.redact_attributes`; `all` is every module, too. */
  readonly redactHooks: readonly string[]
  readonly redactAttributes: readonly string[]
  /** When the capture was made, as far as that is known. */
  readonly startedAtMicros: number
}

export interface Capture {
  readonly producer: ProducerInfo
  readonly request: RequestInfo
  readonly summary: RequestSummary
  /** How many ids its token row has. */
  readonly tokenIds: number
  /** The row of the next packet of a module; null content is a packet that cannot be read. */
  row(module: ModuleFacts, content: Uint8Array | null): TensorRow | null
  /** The row of token ids, when the capture has them. */
  tokenRow(): TensorRow | null
}

const noRanks = { tp: 0, pp: 0, dp: 0, ep: 0 }
/** What a packet that cannot be read counts as: a step of one token, as most are. */
const DAMAGED_ENTRIES = 1

export function createCapture(options: CaptureOptions): Capture {
  const { survey, dtype } = options
  const modules = [...survey.modules.values()]
  const producer = { segment: 'import', boot: survey.fingerprint.slice(0, 16), host: '', pid: 0 }
  const model = modelOf(options, modules)
  const request = createAttributeRedaction(options.redactAttributes)(requestOf(options, modules))
  const common = {
    request,
    model,
    producer,
    layer: -1,
    kvOffset: 0,
    ranks: noRanks,
    capturedAtMicros: options.startedAtMicros,
    statistics: {},
  }
  const payloadOf = (hook: string, data: Uint8Array) =>
    isRedacted(options, hook) ? withoutPayload : { crc32c: crc32c(data), data }
  const places = new Map<string, { step: number; token: number }>()

  function row(module: ModuleFacts, content: Uint8Array | null): TensorRow | null {
    const { step, token } = places.get(module.module) ?? { step: 0, token: 0 }
    const entries =
      content === null ? DAMAGED_ENTRIES : content.byteLength / survey.elementBytes / module.width
    places.set(module.module, { step: step + 1, token: token + entries })
    if (content === null) return null
    return {
      ...common,
      hook: module.hook,
      step,
      phase: step === 0 ? 'prefill' : 'decode',
      tokenStart: token,
      tokenEnd: token + entries,
      dtype,
      shape: [entries, module.width],
      nonfinite: countNonfinite(dtype, content),
      ...payloadOf(module.hook, content),
    }
  }

  function tokenRow(): TensorRow | null {
    const { tokens } = options
    if (tokens === null || tokens.ids.length === 0) return null
    const data = new Uint8Array(Int32Array.from(tokens.ids).buffer)
    return {
      ...common,
      hook: 'token_ids',
      step: 0,
      phase: 'decode',
      tokenStart: tokens.first,
      tokenEnd: tokens.first + tokens.ids.length,
      dtype: 'int32',
      shape: [tokens.ids.length],
      nonfinite: 0,
      ...payloadOf('token_ids', data),
    }
  }

  const tokenIds = options.tokens?.ids.length ?? 0
  const summary = summaryOf(options, common, modules)
  return { producer, request, summary, tokenIds, row, tokenRow }
}

function isRedacted({ redactHooks }: CaptureOptions, hook: string): boolean {
  return redactHooks.includes('all') || redactHooks.includes(hook)
}

function modelOf(options: CaptureOptions, modules: readonly ModuleFacts[]): ModelInfo {
  return {
    name: options.model,
    revision: '',
    engine: 'strap-llm',
    dtype: options.dtype,
    layers: 0,
    heads: 0,
    kvHeads: 0,
    hidden: 0,
    vocabulary: 0,
    hooks: Object.fromEntries(modules.map(({ hook }) => [hook, [-1]])),
  }
}

function requestOf(options: CaptureOptions, modules: readonly ModuleFacts[]): RequestInfo {
  const requestId = `strap-${options.survey.fingerprint.slice(0, 32)}`
  const traceId = options.traceId ?? deriveTraceId(requestId)
  const named = modules.filter(({ hook }) => hook.startsWith('module_'))
  const attributes: Record<string, AttributeValue> = { 'import.format': 'strap-llm' }
  for (const { hook, module } of named.slice(0, importLimits.moduleAttributesMax)) {
    attributes[`import.${hook}`] = module
  }
  return {
    key: 0,
    requestId,
    traceId,
    spanId: deriveSpanId(traceId, requestId, 'request'),
    parentSpanId: null,
    traceFlags: 0,
    traceState: null,
    traceOrigin: options.traceId === null ? 'derived' : 'request',
    attributes,
    startedAtMicros: options.startedAtMicros,
  }
}

function summaryOf(
  options: CaptureOptions,
  common: Pick<TensorRow, 'request' | 'model' | 'producer'>,
  modules: readonly ModuleFacts[],
): RequestSummary {
  const { survey, startedAtMicros } = options
  const ended = startedAtMicros + (options.tokens?.durationMicros ?? 0)
  const longest = modules.reduce<ModuleFacts | null>(
    (most, one) => (most === null || entriesOf(one) > entriesOf(most) ? one : most),
    null,
  )
  const tokens = longest === null ? 0 : entriesOf(longest)
  const prompt = longest === null ? 0 : longest.first / longest.width
  const reasons = reasonsOf(survey)
  const kept = modules.filter(({ hook }) => !isRedacted(options, hook))
  const bytes = kept.reduce((sum, { values }) => sum + values * survey.elementBytes, 0)
  return {
    request: common.request,
    model: common.model,
    producer: common.producer,
    endedAtMicros: ended,
    tokens,
    promptTokens: prompt,
    steps: longest?.packets ?? 0,
    phases: phasesOf(tokens, prompt, longest?.packets ?? 0, startedAtMicros, ended),
    verdict: 'unknown',
    findings: [],
    missingEvidence: ['an imported capture has no statistics'],
    baseline: 'default',
    completeness: {
      state: survey.end.tornBytes + survey.damagedPackets > 0 ? 'incomplete' : 'unknown',
      expected: survey.packets,
      seen: survey.packets - survey.damagedPackets,
      reasons,
    },
    layerSeries: {},
    globals: {},
    nan: 0,
    posInf: 0,
    negInf: 0,
    tensorsStored: survey.packets - survey.damagedPackets,
    bytesStored: bytes,
  }
}

function entriesOf(module: ModuleFacts): number {
  return module.values / module.width
}

function phasesOf(
  tokens: number,
  prompt: number,
  steps: number,
  startedAtMicros: number,
  endedAtMicros: number,
): PhaseSummary[] {
  const times = { startedAtMicros, endedAtMicros }
  const prefill = { phase: 'prefill', ...times, tokenStart: 0, tokenEnd: prompt, steps: 1 } as const
  const decode = { phase: 'decode', ...times, tokenStart: prompt, tokenEnd: tokens } as const
  const later = steps > 1 ? [{ ...decode, steps: steps - 1 }] : []
  return steps === 0 ? [] : [prefill, ...later]
}

function reasonsOf({ end, damagedPackets }: StreamSurvey): string[] {
  const reasons = ['the format does not say how many packets there were to be']
  if (end.tornBytes > 0) reasons.push(`${end.tornBytes} bytes at the end are no whole packet`)
  if (damagedPackets > 0) reasons.push(`${damagedPackets} packets could not be read`)
  return reasons
}

/** Elements whose exponent has all bits set; integers have none. */
function countNonfinite(dtype: string, content: Uint8Array): number {
  const { buffer, byteOffset, byteLength } =
    content.byteOffset % 8 === 0 ? content : content.slice()
  const shorts = { float16: 0x7c00, bfloat16: 0x7f80 }[dtype]
  let count = 0
  if (shorts !== undefined) {
    for (const bits of new Uint16Array(buffer, byteOffset, byteLength / 2)) {
      if ((bits & shorts) === shorts) count += 1
    }
  } else if (dtype === 'float32') {
    for (const value of new Float32Array(buffer, byteOffset, byteLength / 4)) {
      if (!Number.isFinite(value)) count += 1
    }
  } else if (dtype === 'float64') {
    for (const value of new Float64Array(buffer, byteOffset, byteLength / 8)) {
      if (!Number.isFinite(value)) count += 1
    }
  }
  return count
}
