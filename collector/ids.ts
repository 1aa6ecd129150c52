/**
 * Trace and span ids: derived ones, and those read from a W3C `traceparent`.
 *
 * Pure functions. Derived ids depend on their inputs alone, so that exporting a request twice, or
 * in another process after a crash, gives the same ids. No id made here is ever all zero.
 */

import { createHash } from 'node:crypto'
import type { ContextFault } from './records.ts'

export const TRACE_FLAG_SAMPLED = 0x01

const TRACE_ID_BYTES = 16
const SPAN_ID_BYTES = 8
/** `00-<32>-<16>-<2>`: all of a version 00 header, and the start of a later version's. */
const TRACEPARENT_CHARACTERS = 55
const TRACEPARENT_HEAD = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/
const TRACE_REQUEST_ID = /^([0-9a-f]{32})-([0-9a-f]{16})$/
const ALL_ZERO = /^0+$/

export interface TraceParent {
  /** 32 lower-case hexadecimal digits. */
  readonly traceId: string
  /** 16 lower-case hexadecimal digits. */
  readonly parentSpanId: string
  /** Trace flags; bit 0 is `sampled`. */
  readonly flags: number
}

/**
 * Id of a span of a request: the first 8 bytes of SHA-256(`traceId|requestId|stage`), in
 * hexadecimal.
 *
 * @param stage `request`, `prefill`, `decode`, …: unique among the spans of one request.
 */
export function deriveSpanId(traceId: string, requestId: string, stage: string): string {
  return digestPrefix(`${traceId}|${requestId}|${stage}`, SPAN_ID_BYTES)
}

/** Trace id of a request that came without one: 16 bytes of SHA-256(`ring2|requestId`). */
export function deriveTraceId(requestId: string): string {
  return digestPrefix(`ring2|${requestId}`, TRACE_ID_BYTES)
}

/**
 * Reads a W3C trace context `traceparent`; null when it is malformed.
 *
 * Version ff is invalid. A version above 00 is read as far as version 00 goes, and of its flags
 * only `sampled` is taken, as the specification asks (https://www.w3.org/TR/trace-context/ §3.2.2,
 * §4.3).
 */
export function parseTraceparent(text: string): TraceParent | null {
  const match = TRACEPARENT_HEAD.exec(text.slice(0, TRACEPARENT_CHARACTERS))
  if (match === null) return null
  const [, version, traceId, parentSpanId, flagsText] = match
  if (version === undefined || traceId === undefined) return null
  if (parentSpanId === undefined || flagsText === undefined) return null
  if (version === 'ff' || isZeroId(traceId) || isZeroId(parentSpanId)) return null
  const flags = Number.parseInt(flagsText, 16)
  if (version === '00') {
    return text.length === TRACEPARENT_CHARACTERS ? { traceId, parentSpanId, flags } : null
  }
  const next = text[TRACEPARENT_CHARACTERS]
  if (next !== undefined && next !== '-') return null
  return { traceId, parentSpanId, flags: flags & TRACE_FLAG_SAMPLED }
}

/** Why `parseTraceparent` gives null for this text. */
export function traceparentFault(text: string): ContextFault {
  const match = TRACEPARENT_HEAD.exec(text.slice(0, TRACEPARENT_CHARACTERS))
  if (match === null) return 'traceparent_malformed'
  const [, version = '', traceId = '', parentSpanId = ''] = match
  if (version === 'ff') return 'traceparent_version'
  const zero = isZeroId(traceId) || isZeroId(parentSpanId)
  return zero ? 'traceparent_zero_id' : 'traceparent_malformed'
}

/** OpenTelemetry's "no id". */
export function isZeroId(hexadecimal: string): boolean {
  return ALL_ZERO.test(hexadecimal)
}

/**
 * Reads a request id of the form `<trace id>-<span id>`; null when it has another form. Such an id
 * carries no flags, so it counts as sampled.
 */
export function parseTraceRequestId(requestId: string): TraceParent | null {
  const match = TRACE_REQUEST_ID.exec(requestId)
  const traceId = match?.[1]
  const parentSpanId = match?.[2]
  if (traceId === undefined || parentSpanId === undefined) return null
  if (isZeroId(traceId) || isZeroId(parentSpanId)) return null
  return { traceId, parentSpanId, flags: TRACE_FLAG_SAMPLED }
}

function digestPrefix(text: string, bytes: number): string {
  const prefix = createHash('sha256').update(text, 'utf8').digest().subarray(0, bytes)
  // An all-zero id means "no id" in OpenTelemetry, so the one such digest is moved aside.
  if (prefix.every((byte) => byte === 0)) prefix[bytes - 1] = 1
  return prefix.toString('hex')
}
