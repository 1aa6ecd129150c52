/**
 * A stitched tensor as npy, safetensors, an Arrow stream or JSON: a head, the elements as they are
 * stored, and a tail. Only JSON is made in memory; of the others the elements pass through.
 *
 * Heads and tails: frames.ts and arrow.ts. JSON cannot hold NaN or infinities: they are the texts "NaN", "Infinity" and
 * "-Infinity", and an INT64 beyond 2^53 is a text too. No value is replaced by null.
 */

import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import { arrowFrame } from './arrow.ts'
import type { Dtype } from './dtypes.ts'
import {
  elementBytes,
  elementCount,
  type Frame,
  npyFrame,
  safetensorsFrame,
  type TensorFacts,
} from './frames.ts'

export const tensorFormats = ['npy', 'safetensors', 'arrow', 'json'] as const

export type TensorFormat = (typeof tensorFormats)[number]

export const contentTypes: Readonly<Record<TensorFormat, string>> = {
  npy: 'application/x-npy',
  safetensors: 'application/vnd.safetensors',
  arrow: 'application/vnd.apache.arrow.stream',
  json: 'application/json; charset=utf-8',
}

/** Where the elements come from: little-endian, row-major. */
export interface ElementSource {
  read(signal: AbortSignal | null): Promise<Uint8Array>
  stream(start: number, end: number, signal: AbortSignal | null): AsyncIterable<Uint8Array>
}

export interface TensorAnswer {
  readonly size: number
  /** Bytes [start, end) of the encoded tensor, read as they are taken. */
  stream(start: number, end: number): AsyncGenerator<Uint8Array, void, undefined>
}

/**
 * @param signal ends the reads; the answer then throws its reason.
 * @throws Ring2Error RING2_E_TOO_LARGE for JSON of too many elements.
 */
export async function answerTensor(
  format: TensorFormat,
  tensor: TensorFacts,
  elements: ElementSource,
  signal: AbortSignal | null = null,
): Promise<TensorAnswer> {
  if (format === 'json') return jsonAnswer(tensor, elements, signal)
  const { head, tail } = await frameOf(format, tensor)
  const bytes = elementBytes(tensor)
  const bodyEnd = head.byteLength + bytes
  const size = bodyEnd + tail.byteLength
  async function* stream(start: number, end: number) {
    const before = head.subarray(start, end)
    if (before.byteLength > 0) yield before
    const first = Math.max(0, start - head.byteLength)
    const last = Math.min(bytes, end - head.byteLength)
    if (first < last) yield* elements.stream(first, last, signal)
    const after = tail.subarray(Math.max(0, start - bodyEnd), Math.max(0, end - bodyEnd))
    if (after.byteLength > 0) yield after
  }
  return { size, stream }
}

/** Bytes of memory that an answer in this format takes, given what its stream alone takes. */
export function answerMemoryBytes(
  format: TensorFormat,
  tensor: TensorFacts,
  streamBytes: number,
): number {
  if (format !== 'json') return streamBytes
  return streamBytes + elementBytes(tensor) + elementCount(tensor) * JSON_ELEMENT_BYTES
}

/** Some bytes of text, and those of the value that it is made from. */
const JSON_ELEMENT_BYTES = 48

function frameOf(
  format: Exclude<TensorFormat, 'json'>,
  tensor: TensorFacts,
): Frame | Promise<Frame> {
  switch (format) {
    case 'npy':
      return npyFrame(tensor)
    case 'safetensors':
      return safetensorsFrame(tensor)
    case 'arrow':
      return arrowFrame(tensor)
  }
}

async function jsonAnswer(
  tensor: TensorFacts,
  elements: ElementSource,
  signal: AbortSignal | null,
): Promise<TensorAnswer> {
  const { dtype, shape, metadata } = tensor
  const count = elementCount(tensor)
  if (count > answerLimits.jsonElementsMax) {
    throw new Ring2Error('RING2_E_TOO_LARGE', {
      expected: `at most ${answerLimits.jsonElementsMax} elements as JSON`,
      actual: `${count} elements, shape [${shape}]`,
      action: 'Use format=npy or safetensors, or ask for a token range or fewer heads.',
    })
  }
  const data = await elements.read(signal)
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const values = nested(view, dtype, shape, 0, { offset: 0 })
  const text = Buffer.from(JSON.stringify({ ...metadata, data: values }))
  async function* stream(start: number, end: number) {
    for (let at = start; at < end; at += JSON_PART_BYTES) {
      yield text.subarray(at, Math.min(end, at + JSON_PART_BYTES))
    }
  }
  return { size: text.length, stream }
}

const JSON_PART_BYTES = 1024 * 1024

type Nested = JsonElement | Nested[]
type JsonElement = number | boolean | string

function nested(
  view: DataView,
  dtype: Dtype,
  shape: readonly number[],
  axis: number,
  cursor: { offset: number },
): Nested {
  const size = shape[axis]
  if (size === undefined) {
    const value = dtype.read(view, cursor.offset)
    cursor.offset += dtype.bytes
    return jsonElement(value)
  }
  const items: Nested[] = []
  for (let index = 0; index < size; index += 1) {
    items.push(nested(view, dtype, shape, axis + 1, cursor))
  }
  return items
}

function jsonElement(value: number | bigint | boolean): JsonElement {
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value.toString()
  }
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  return value
}
