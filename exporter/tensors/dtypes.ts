/**
 * Element types of tensors: size, names in npy and safetensors, and how one element becomes a JSON
 * number. Names are those of the wire protocol; bytes are little-endian.
 */

import { Ring2Error } from '../errors.ts'

export interface Dtype {
  readonly name: string
  readonly bytes: number
  /** npy descriptor. NumPy has no bfloat16: its bits are delivered as 16-bit unsigned integers. */
  readonly npy: string
  readonly safetensors: string
  readonly read: (view: DataView, offset: number) => number | bigint | boolean
}

const dtypes: readonly Dtype[] = [
  dtype('float32', 4, '<f4', 'F32', (view, at) => view.getFloat32(at, true)),
  dtype('float16', 2, '<f2', 'F16', (view, at) => halfToNumber(view.getUint16(at, true))),
  dtype('bfloat16', 2, '<u2', 'BF16', (view, at) => brainToNumber(view.getUint16(at, true))),
  dtype('float64', 8, '<f8', 'F64', (view, at) => view.getFloat64(at, true)),
  dtype('int8', 1, '|i1', 'I8', (view, at) => view.getInt8(at)),
  dtype('uint8', 1, '|u1', 'U8', (view, at) => view.getUint8(at)),
  dtype('int16', 2, '<i2', 'I16', (view, at) => view.getInt16(at, true)),
  dtype('int32', 4, '<i4', 'I32', (view, at) => view.getInt32(at, true)),
  dtype('int64', 8, '<i8', 'I64', (view, at) => view.getBigInt64(at, true)),
  dtype('bool', 1, '|b1', 'BOOL', (view, at) => view.getUint8(at) !== 0),
]

function dtype(
  name: string,
  bytes: number,
  npy: string,
  safetensors: string,
  read: Dtype['read'],
): Dtype {
  return { name, bytes, npy, safetensors, read }
}

/** Throws RING2_E_STORE for a name that no version of the protocol has. */
export function dtypeOf(name: string): Dtype {
  const found = dtypes.find((one) => one.name === name)
  if (found !== undefined) return found
  throw new Ring2Error('RING2_E_STORE', {
    expected: `one of the element types ${dtypes.map((one) => one.name).join(', ')}`,
    actual: JSON.stringify(name),
    action: 'Read the file with an exporter of the version that wrote it.',
  })
}

/** IEEE 754 binary16. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

const scratch = new DataView(new ArrayBuffer(4))

/** bfloat16 is the upper half of a binary32. */
function brainToNumber(bits: number): number {
  scratch.setUint32(0, bits << 16)
  return scratch.getFloat32(0)
}
