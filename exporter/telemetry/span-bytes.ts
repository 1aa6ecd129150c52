/**
 * How many bytes a span takes, estimated: for bounding what waits in memory and what one export
 * carries. It errs on the large side; it is not the size on the wire.
 */

import type { Attributes } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'

/** Ids, times, name, status, and the objects around them. */
const SPAN_BYTES = 512
const EVENT_BYTES = 128
const ATTRIBUTE_BYTES = 16
/** In an array a double has a tag, and a tag and length of its own around it. */
const NUMBER_BYTES = 11
/** UTF-8 needs at most three bytes for one UTF-16 unit. */
const CHARACTER_BYTES = 3

export function estimateSpanBytes(span: ReadableSpan): number {
  let bytes = SPAN_BYTES + attributesBytes(span.attributes)
  for (const event of span.events) bytes += EVENT_BYTES + attributesBytes(event.attributes ?? {})
  return bytes
}

function attributesBytes(attributes: Attributes): number {
  let bytes = 0
  for (const [name, value] of Object.entries(attributes)) {
    bytes += ATTRIBUTE_BYTES + name.length + valueBytes(value)
  }
  return bytes
}

function valueBytes(value: unknown): number {
  if (typeof value === 'string') return value.length * CHARACTER_BYTES
  if (!Array.isArray(value)) return NUMBER_BYTES
  let bytes = 0
  for (const element of value) bytes += valueBytes(element)
  return bytes
}
