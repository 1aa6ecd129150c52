/**
 * What stands around a tensor's elements in npy and safetensors files. Pure.
 *
 * npy 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. NumPy has no
 * bfloat16, so such a tensor is delivered as its bits (`<u2`) and the caller says so beside it.
 * safetensors: https://github.com/huggingface/safetensors#format; it has every type we have.
 */

import type { Dtype } from './dtypes.ts'

/** What a tensor is, without its elements. */
export interface TensorFacts {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** Of the tensor inside the file, where a format has names. */
  readonly name: string
  /** Metadata of safetensors and Arrow, fields of the JSON document. */
  readonly metadata: Readonly<Record<string, unknown>>
}

/** What stands before the elements and behind them. */
export interface Frame {
  readonly head: Uint8Array
  readonly tail: Uint8Array
}

const nothing = new Uint8Array()

/** Facts as texts, for formats whose metadata holds nothing else. */
export function textMetadata({ metadata }: Pick<TensorFacts, 'metadata'>): Map<string, string> {
  return new Map(
    Object.entries(metadata).map(([key, value]) => [
      key,
      typeof value === 'string' ? value : JSON.stringify(value),
    ]),
  )
}

export function elementCount({ shape }: Pick<TensorFacts, 'shape'>): number {
  return shape.reduce((result, size) => result * size, 1)
}

export function elementBytes(tensor: Pick<TensorFacts, 'shape' | 'dtype'>): number {
  return elementCount(tensor) * tensor.dtype.bytes
}

const NPY_ALIGNMENT = 64
const NPY_PREFIX_BYTES = 10

export function npyFrame(tensor: TensorFacts): Frame {
  const { shape, dtype } = tensor
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ')
  const text = `{'descr': '${dtype.npy}', 'fortran_order': False, 'shape': (${tuple}), }`
  const padding = NPY_ALIGNMENT - ((NPY_PREFIX_BYTES + text.length + 1) % NPY_ALIGNMENT)
  const body = `${text}${' '.repeat(padding % NPY_ALIGNMENT)}\n`
  const prefix = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 0, 0])
  prefix.writeUInt16LE(body.length, 8)
  return { head: Buffer.concat([prefix, Buffer.from(body, 'latin1')]), tail: nothing }
}

const SAFETENSORS_ALIGNMENT = 8

export function safetensorsFrame(tensor: TensorFacts): Frame {
  const header = {
    __metadata__: Object.fromEntries(textMetadata(tensor)),
    [tensor.name]: {
      dtype: tensor.dtype.safetensors,
      shape: tensor.shape,
      data_offsets: [0, elementBytes(tensor)],
    },
  }
  const text = Buffer.from(JSON.stringify(header))
  const padded = Math.ceil(text.length / SAFETENSORS_ALIGNMENT) * SAFETENSORS_ALIGNMENT
  const out = Buffer.alloc(8 + padded, ' ')
  out.writeBigUInt64LE(BigInt(padded), 0)
  text.copy(out, 8)
  return { head: out, tail: nothing }
}
