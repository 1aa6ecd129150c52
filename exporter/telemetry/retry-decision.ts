/**
 * What an answer of the Collector calls for: another try, smaller batches, or giving the batch up.
 *
 * Source: OTLP specification, "OTLP/gRPC Response" and "OTLP/gRPC Throttling"; the details of a
 * status: google/rpc/status.proto and google/rpc/error_details.proto.
 *
 * RESOURCE_EXHAUSTED without RetryInfo is final by the specification, but Collectors that are merely
 * busy answer so too. It is tried again a bounded number of times: nothing is lost to a busy
 * Collector, and a batch that can never be taken does not stand in the way for good.
 *
 * What our own encoder refuses, no try will change: the batch is halved until only what cannot be
 * encoded is left, and that is given up.
 */

import { errorText } from '../errors.ts'
import { deliveryLimits } from './limits.ts'
import { createProtobufReader } from './protobuf.ts'

export type RetryDecision =
  /** `afterMillis`: the pause that the Collector asks for, or null. */
  | { readonly next: 'retry'; readonly afterMillis: number | null }
  | { readonly next: 'smaller' }
  | { readonly next: 'refused' }

const RESOURCE_EXHAUSTED = 8
/** CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS. */
const retryableCodes = new Set([1, 4, 10, 11, 14, 15])
const tooLargeText = /larger than max|too large|message size/i

/** The items of a batch cannot be written in OTLP's form. */
export class EncodingError extends Error {
  constructor(cause: unknown) {
    super(`cannot be encoded: ${errorText(cause)}`, { cause })
  }
}

/** @param failures tries of this batch that have failed so, this one included. */
export function decideRetry(error: Error, failures: number): RetryDecision {
  if (error instanceof EncodingError) return { next: 'smaller' }
  const code = 'code' in error && typeof error.code === 'number' ? error.code : null
  // An error without a status never reached the Collector, so it may be tried again.
  if (code === null) return { next: 'retry', afterMillis: null }
  const afterMillis = retryInfoMillis(error)
  if (retryableCodes.has(code)) return { next: 'retry', afterMillis }
  if (code !== RESOURCE_EXHAUSTED) return { next: 'refused' }
  if (afterMillis !== null) return { next: 'retry', afterMillis }
  if (tooLargeText.test(error.message)) return { next: 'smaller' }
  return failures < deliveryLimits.exhaustedTriesMax
    ? { next: 'retry', afterMillis: null }
    : { next: 'refused' }
}

/** google.rpc.Status, Any, RetryInfo and Duration. */
const STATUS_DETAILS = 3
const ANY_TYPE = 1
const ANY_VALUE = 2
const RETRY_DELAY = 1
const SECONDS = 1
const NANOS = 2
const retryInfoType = 'type.googleapis.com/google.rpc.RetryInfo'

interface Metadata {
  get(name: string): readonly unknown[]
}

/** The delay of the status's RetryInfo, bounded; null when there is none that can be read. */
function retryInfoMillis(error: Error): number | null {
  if (!('metadata' in error)) return null
  const metadata = error.metadata as Partial<Metadata> | null | undefined
  const status = metadata?.get?.('grpc-status-details-bin')[0]
  if (!(status instanceof Uint8Array)) return null
  try {
    const millis = delayIn(status)
    return millis === null ? null : Math.min(Math.max(0, millis), deliveryLimits.retryInfoMillisMax)
  } catch {
    // Details that are damaged say nothing; the code alone decides.
    return null
  }
}

function delayIn(status: Uint8Array): number | null {
  const details = createProtobufReader(status)
  while (details.next()) {
    if (details.field !== STATUS_DETAILS) continue
    let type = ''
    let value: Buffer = Buffer.alloc(0)
    const any = createProtobufReader(details.content())
    while (any.next()) {
      if (any.field === ANY_TYPE) type = any.text()
      if (any.field === ANY_VALUE) value = any.content()
    }
    if (type === retryInfoType) return durationMillis(value)
  }
  return null
}

function durationMillis(retryInfo: Buffer): number {
  let millis = 0
  const info = createProtobufReader(retryInfo)
  while (info.next()) {
    if (info.field !== RETRY_DELAY) continue
    const duration = createProtobufReader(info.content())
    while (duration.next()) {
      if (duration.field === SECONDS) millis += duration.int64() * 1000
      if (duration.field === NANOS) millis += duration.int64() / 1e6
    }
  }
  return millis
}
