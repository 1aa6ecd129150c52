/**
 * A stitched tensor as npy, safetensors or JSON. Pure: bytes in, bytes out.
 *
 * npy 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. NumPy has no
 * bfloat16, so such a tensor is delivered as its bits (`<u2`) and the caller says so beside it.
 * safetensors: https://github.com/huggingface/safetensors#format; it has every type we have.
 * JSON cannot hold NaN or infinities: they are the texts "NaN", "Infinity" and "-Infinity", and an
 * INT64 beyond 2^53 is a text too. No value is replaced by null.
 */

import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import type { Dtype } from './dtypes.ts'

export type TensorFormat = 'npy' | 'safetensors' | 'json'

export const tensorFormats: readonly TensorFormat[] = ['npy', 'safetensors', 'json']

export const contentTypes: Readonly<Record<TensorFormat, string>> = {
  npy: 'application/x-npy',
  safetensors: 'application/vnd.safetensors',
  json: 'application/json; charset=utf-8',
}

export interface TensorValue {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** Little-endian, row-major. */
  readonly data: Uint8Array
}

/**
 * @param name of the tensor inside a safetensors file.
 * @param facts what the tensor is: metadata of safetensors, fields of the JSON document.
 */
export function encodeTensor(
  format: TensorFormat,
  tensor: TensorValue,
  name: string,
  facts: Readonly<Record<string, unknown>>,
): Buffer {
  switch (format) {
    case 'npy':
      return Buffer.concat([npyHeader(tensor), tensor.data])
    case 'safetensors':
      return Buffer.concat([safetensorsHeader(tensor, name, facts), tensor.data])
    case 'json':
      return Buffer.from(jsonDocument(tensor, facts))
  }
}

const NPY_ALIGNMENT = 64
const NPY_PREFIX_BYTES = 10

function npyHeader(tensor: TensorValue): Buffer {
  const { shape, dtype } = tensor
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ')
  const text = `{'descr': '${dtype.npy}', 'fortran_order': False, 'shape': (${tuple}), }`
  const padding = NPY_ALIGNMENT - ((NPY_PREFIX_BYTES + text.length + 1) % NPY_ALIGNMENT)
  const body = `${text}${' '.repeat(padding % NPY_ALIGNMENT)}\n`
  const prefix = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 0, 0])
  prefix.writeUInt16LE(body.length, 8)
  return Buffer.concat([prefix, Buffer.from(body, 'latin1')])
}

const SAFETENSORS_ALIGNMENT = 8

function safetensorsHeader(
  tensor: TensorValue,
  name: string,
  facts: Readonly<Record<string, unknown>>,
): Buffer {
  const metadata: Record<string, string> = {}
  for (const [key, value] of Object.entries(facts)) {
    metadata[key] = typeof value === 'string' ? value : JSON.stringify(value)
  }
  const header = {
    __metadata__: metadata,
    [name]: {
      dtype: tensor.dtype.safetensors,
      shape: tensor.shape,
      data_offsets: [0, tensor.data.byteLength],
    },
  }
  const text = Buffer.from(JSON.stringify(header))
  const padded = Math.ceil(text.length / SAFETENSORS_ALIGNMENT) * SAFETENSORS_ALIGNMENT
  const out = Buffer.alloc(8 + padded, ' ')
  out.writeBigUInt64LE(BigInt(padded), 0)
  text.copy(out, 8)
  return out
}

function jsonDocument(tensor: TensorValue, facts: Readonly<Record<string, unknown>>): string {
  const elements = tensor.shape.reduce((result, size) => result * size, 1)
  if (elements > answerLimits.jsonElementsMax) {
    throw new Ring2Error('RING2_E_TOO_LARGE', {
      expected: `at most ${answerLimits.jsonElementsMax} elements as JSON`,
      actual: `${elements} elements, shape [${tensor.shape}]`,
      action: 'Use format=npy or safetensors, or ask for a token range or fewer heads.',
    })
  }
  const view = new DataView(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength)
  const { dtype, shape } = tensor
  return JSON.stringify({ ...facts, data: nested(view, dtype, shape, 0, { offset: 0 }) })
}

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
