/**
 * Reads the spans of an OTLP ExportTraceServiceRequest, as Protocol Buffers or JSON, as far as they
 * can give a request its trace context. What they say is not checked here (see tap.ts).
 *
 * Field numbers: opentelemetry-proto 1.x, trace_service.proto, trace.proto and common.proto. JSON:
 * OTLP specification, "JSON Protobuf Encoding".
 */

import { createProtobufReader, type ProtobufReader, WIRE } from './protobuf.ts'

/** A span that names a request. Ids are hexadecimal, of whatever length they came with. */
export interface TapSpan {
  readonly scope: string
  readonly traceId: string
  readonly spanId: string
  readonly traceState: string
  readonly startedAtMicros: number
  readonly endedAtMicros: number
  /** Attribute → its value, null when that is no text. */
  readonly ids: ReadonlyMap<string, string | null>
}

/** Attributes that name a request, the most telling one first. */
export const requestIdAttributes = [
  'ring2.request.id',
  'gen_ai.request.id',
  'gen_ai.response.id',
] as const

const named: ReadonlySet<string> = new Set(requestIdAttributes)

const RESOURCE_SPANS = 1
const SCOPE_SPANS = 2
const SCOPE = 1
const SCOPE_NAME = 1
const SPANS = 2
const TRACE_ID = 1
const SPAN_ID = 2
const TRACE_STATE = 3
const START_TIME = 7
const END_TIME = 8
const ATTRIBUTES = 9
const KEY = 1
const VALUE = 2
const STRING_VALUE = 1

/** @throws RangeError when the bytes are no such message. */
export function readProtobufSpans(body: Uint8Array): TapSpan[] {
  const spans: TapSpan[] = []
  for (const resource of messages(body, RESOURCE_SPANS)) {
    for (const scopeSpans of messages(resource, SCOPE_SPANS)) {
      let scope = ''
      for (const message of messages(scopeSpans, SCOPE)) {
        for (const name of messages(message, SCOPE_NAME)) scope = name.toString('utf8')
      }
      for (const message of messages(scopeSpans, SPANS)) {
        const span = protobufSpan(message, scope)
        if (span.ids.size > 0) spans.push(span)
      }
    }
  }
  return spans
}

/** Contents of the fields of that number. Every other field is walked over, and thereby checked. */
function messages(message: Uint8Array, field: number): Buffer[] {
  const found: Buffer[] = []
  const reader = createProtobufReader(message)
  while (reader.next()) {
    if (reader.field !== field) continue
    if (reader.wire !== WIRE.bytes)
      throw new RangeError(`field ${field} of wire type ${reader.wire}`)
    found.push(reader.content())
  }
  return found
}

function protobufSpan(message: Buffer, scope: string): TapSpan {
  const ids = new Map<string, string | null>()
  const span = { scope, traceId: '', spanId: '', traceState: '', ids }
  let startedAtMicros = 0
  let endedAtMicros = 0
  const reader = createProtobufReader(message)
  while (reader.next()) {
    if (reader.field === TRACE_ID) span.traceId = reader.content().toString('hex')
    else if (reader.field === SPAN_ID) span.spanId = reader.content().toString('hex')
    else if (reader.field === TRACE_STATE) span.traceState = reader.text()
    else if (reader.field === START_TIME) startedAtMicros = timeOf(reader)
    else if (reader.field === END_TIME) endedAtMicros = timeOf(reader)
    else if (reader.field === ATTRIBUTES) addId(ids, reader.content())
  }
  return { ...span, startedAtMicros, endedAtMicros }
}

function timeOf(reader: ProtobufReader): number {
  return reader.wire === WIRE.fixed64 ? micros(reader.content().readBigUInt64LE()) : 0
}

function micros(nanoseconds: bigint): number {
  return Number(nanoseconds / 1000n)
}

function addId(ids: Map<string, string | null>, attribute: Buffer): void {
  const key = messages(attribute, KEY).at(-1)?.toString('utf8') ?? ''
  if (!named.has(key)) return
  let text: string | null = null
  for (const value of messages(attribute, VALUE)) {
    const reader = createProtobufReader(value)
    while (reader.next()) if (reader.field === STRING_VALUE) text = reader.text()
  }
  ids.set(key, text)
}

/** @throws SyntaxError or RangeError when the text is no such message. */
export function readJsonSpans(body: Uint8Array): TapSpan[] {
  const request: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  return listOf(request, 'resourceSpans').flatMap((resource) =>
    listOf(resource, 'scopeSpans').flatMap((scopeSpans) => {
      const scope = textOf(fieldOf(fieldOf(scopeSpans, 'scope'), 'name'))
      return listOf(scopeSpans, 'spans')
        .map((span) => jsonSpan(span, scope))
        .filter((span) => span.ids.size > 0)
    }),
  )
}

function jsonSpan(span: unknown, scope: string): TapSpan {
  const ids = new Map<string, string | null>()
  for (const attribute of listOf(span, 'attributes')) {
    const key = textOf(fieldOf(attribute, 'key'))
    if (!named.has(key)) continue
    const value = fieldOf(fieldOf(attribute, 'value'), 'stringValue')
    ids.set(key, typeof value === 'string' ? value : null)
  }
  return {
    scope,
    traceId: textOf(fieldOf(span, 'traceId')).toLowerCase(),
    spanId: textOf(fieldOf(span, 'spanId')).toLowerCase(),
    traceState: textOf(fieldOf(span, 'traceState')),
    startedAtMicros: jsonTime(fieldOf(span, 'startTimeUnixNano')),
    endedAtMicros: jsonTime(fieldOf(span, 'endTimeUnixNano')),
    ids,
  }
}

/** 64-bit integers are texts in JSON, and numbers are accepted. */
function jsonTime(value: unknown): number {
  if (typeof value === 'string' && /^\d{1,20}$/.test(value)) return micros(BigInt(value))
  return typeof value === 'number' && value >= 0 ? Math.floor(value / 1000) : 0
}

function fieldOf(value: unknown, name: string): unknown {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value))
    throw new RangeError(`${name} of no object`)
  return (value as Record<string, unknown>)[name]
}

function listOf(value: unknown, name: string): readonly unknown[] {
  const list = fieldOf(value, name)
  if (list === undefined || list === null) return []
  if (!Array.isArray(list)) throw new RangeError(`${name} is no list`)
  return list
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
