/**
 * Encodes rows on their way into a file, by hook: nothing lost (`lossless`), or each element within
 * 1e-3 of its block's largest magnitude (`absmax`). Formats and bounds: docs/codecs.md.
 *
 * A row that a codec would not make smaller stays as it is. Runs in the drain worker: synchronous,
 * and the encoded bytes are the row's own, so that it no longer refers to the ring.
 */

import {
  codecBounds,
  entropyBits,
  type Quantised,
  quantise,
  quantisedBytes,
  splitPlanes,
  type TensorRow,
} from '../../collector/index.ts'
import { Ring2Error } from '../errors.ts'
import { codecLimits } from '../limits.ts'
import { dtypeOf } from '../tensors/dtypes.ts'
import { containerKinds } from './codec.ts'
import { type Plane, writeContainer } from './container.ts'
import { BOUNDED, type CodecPlan, LOSSLESS } from './plan.ts'

export type RowEncoder = (row: TensorRow) => TensorRow

/** One per thread: it keeps a buffer for planes. */
export function createRowEncoder(plan: CodecPlan): RowEncoder {
  const room = createRoom()

  function encode(row: TensorRow): TensorRow {
    const codec = plan.get(row.hook) ?? 'raw'
    if (codec === 'raw' || !mayShrink(row)) return row
    try {
      const bounded = codec === 'absmax' ? encodeBounded(row, room) : null
      return bounded ?? encodeLossless(row, room)
    } catch (error) {
      // A row whose shape contradicts its bytes is stored as it came; readers name the contradiction.
      if (error instanceof Ring2Error) return row
      throw error
    }
  }

  return encode
}

/** Gives memory for `bytes` bytes, the same again while it is large enough and not too large. */
type Room = (bytes: number) => Uint8Array

function createRoom(): Room {
  let kept = new Uint8Array(0)
  return (bytes) => {
    if (bytes > codecLimits.roomBytesMax) return new Uint8Array(bytes)
    if (kept.byteLength < bytes) kept = new Uint8Array(bytes)
    return kept.subarray(0, bytes)
  }
}

function mayShrink(row: TensorRow): boolean {
  const { byteLength } = row.data
  const fits = byteLength >= codecLimits.rowBytesMin && byteLength <= codecBounds.bytesMax
  return fits && row.encoding === undefined
}

function encodeLossless(row: TensorRow, room: Room): TensorRow {
  const { data } = row
  const { bytes: elementBytes } = dtypeOf(row.dtype)
  const planes = room(data.byteLength)
  splitPlanes(data, elementBytes, planes)
  const elements = data.byteLength / elementBytes
  const sizes = Array.from({ length: elementBytes }, () => elements)
  const facts = { kind: containerKinds.planes, elementBytes, elements, ...noCodes }
  return smaller(row, LOSSLESS, row.crc32c, writeContainer(facts, cut(planes, sizes))) ?? row
}

const noCodes = { row: 0, block: 0, codeBits: 0, dtype: 0, kept: 0 }

/** Ids of `ring2_dtype`, and bits of a code. */
const codedTypes: ReadonlyMap<string, { readonly id: number; readonly codeBits: number }> = new Map(
  [
    ['float32', { id: 1, codeBits: 10 }],
    ['float16', { id: 2, codeBits: 11 }],
    ['bfloat16', { id: 3, codeBits: 11 }],
  ],
)

/** Null where the codec cannot have these elements, or would not make the row smaller. */
function encodeBounded(row: TensorRow, room: Room): TensorRow | null {
  const { data } = row
  const type = codedTypes.get(row.dtype)
  if (type === undefined) return null
  const { bytes: elementBytes } = dtypeOf(row.dtype)
  const elements = data.byteLength / elementBytes
  const what: Quantised = {
    dtype: row.dtype,
    row: row.shape.at(-1) ?? elements,
    block: codecLimits.blockElements,
  }
  const sizes = quantisedBytes(what, elements)
  const fixed = sizes.reduce((sum, size) => sum + size, 0)
  const planes = room(fixed + data.byteLength)
  const { kept, crc32c } = quantise(data, what, planes)
  const facts = {
    kind: containerKinds.absmax,
    elementBytes,
    elements,
    row: what.row,
    block: what.block,
    codeBits: type.codeBits,
    dtype: type.id,
    kept,
  }
  const cuts = cut(planes, [...sizes, kept * elementBytes])
  return smaller(row, BOUNDED, crc32c, writeContainer(facts, cuts))
}

function cut(planes: Uint8Array, sizes: readonly number[]): Plane[] {
  let at = 0
  return sizes.map((size) => {
    const data = planes.subarray(at, at + size)
    at += size
    return { data, compressible: isCompressible(data) }
  })
}

/** A call of zstd costs tens of microseconds, so that small gains and noise are left alone. */
function isCompressible(plane: Uint8Array): boolean {
  if (plane.byteLength < codecLimits.planeBytesMin) return false
  const saved = plane.byteLength * (1 - entropyBits(plane) / 8)
  return saved >= Math.max(codecLimits.savedBytesMin, plane.byteLength * codecLimits.savedShareMin)
}

function smaller(
  row: TensorRow,
  encoding: string,
  crc32c: number,
  data: Uint8Array,
): TensorRow | null {
  if (data.byteLength >= row.data.byteLength) return null
  return { ...row, encoding, decodedBytes: row.data.byteLength, crc32c, data }
}
