/**
 * The container of an encoded payload: a header, a table of planes, and the planes, some of them
 * compressed by zstd. Its bytes are described in docs/codecs.md.
 *
 * Reading trusts nothing: every field is compared with what the row says before anything of that
 * size is made. Not here: what the planes mean (codec.ts, codec-encode.ts).
 */

import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Ring2Error } from '../errors.ts'
import { codecLimits } from '../limits.ts'

/** Little-endian, so that the first four bytes read `R2CD`. */
const MAGIC = 0x44433252
const VERSION = 1
const HEADER_BYTES = 24
const ENTRY_BYTES = 12
const METHOD_RAW = 0
const METHOD_ZSTD = 1

/** Fields that have no meaning for a kind are 0. */
export interface ContainerFacts {
  readonly kind: number
  readonly elementBytes: number
  readonly elements: number
  readonly row: number
  readonly block: number
  readonly codeBits: number
  readonly dtype: number
  readonly kept: number
}

/** Writes the planes that come out smaller compressed, and the others as they are. */
export function writeContainer(facts: ContainerFacts, planes: readonly Plane[]): Uint8Array {
  const stored = planes.map(storePlane)
  const bytes = stored.reduce((sum, plane) => sum + plane.data.byteLength, 0)
  const table = HEADER_BYTES + stored.length * ENTRY_BYTES
  const out = Buffer.allocUnsafe(table + bytes)
  out.writeUInt32LE(MAGIC, 0)
  out.set([VERSION, facts.kind, facts.elementBytes, stored.length], 4)
  out.writeUInt32LE(facts.elements, 8)
  out.writeUInt32LE(facts.row, 12)
  out.writeUInt16LE(facts.block, 16)
  out.set([facts.codeBits, facts.dtype], 18)
  out.writeUInt32LE(facts.kept, 20)
  let at = table
  for (const [index, plane] of stored.entries()) {
    const entry = HEADER_BYTES + index * ENTRY_BYTES
    out.writeUInt32LE(plane.method, entry)
    out.writeUInt32LE(plane.data.byteLength, entry + 4)
    out.writeUInt32LE(plane.bytes, entry + 8)
    out.set(plane.data, at)
    at += plane.data.byteLength
  }
  return new Uint8Array(out.buffer, out.byteOffset, out.byteLength)
}

export interface Plane {
  readonly data: Uint8Array
  /** Whether it may shrink; a plane of noise is not worth the try. */
  readonly compressible: boolean
}

interface StoredPlane {
  readonly method: number
  readonly data: Uint8Array
  /** Before compression. */
  readonly bytes: number
}

const compression = { [constants.ZSTD_c_compressionLevel]: codecLimits.zstdLevel }

function storePlane({ data, compressible }: Plane): StoredPlane {
  const bytes = data.byteLength
  if (compressible) {
    // One chunk as large as the plane: what does not fit into it is not smaller.
    const chunkSize = Math.max(codecLimits.zstdChunkBytesMin, bytes)
    const packed = zstdCompressSync(data, { params: compression, chunkSize })
    if (packed.byteLength < bytes) return { method: METHOD_ZSTD, data: packed, bytes }
  }
  return { method: METHOD_RAW, data, bytes }
}

/** Reads the header alone; `planesOf` then says how large each plane has to be. */
export function readHeader(bytes: Uint8Array): ContainerFacts & { readonly planes: number } {
  if (bytes.byteLength < HEADER_BYTES) throw damaged('a header', `${bytes.byteLength} bytes`)
  const view = viewOf(bytes)
  if (view.getUint32(0, true) !== MAGIC) throw damaged('the mark R2CD', 'other bytes')
  if (view.getUint8(4) !== VERSION) throw damaged(`version ${VERSION}`, `${view.getUint8(4)}`)
  return {
    kind: view.getUint8(5),
    elementBytes: view.getUint8(6),
    planes: view.getUint8(7),
    elements: view.getUint32(8, true),
    row: view.getUint32(12, true),
    block: view.getUint16(16, true),
    codeBits: view.getUint8(18),
    dtype: view.getUint8(19),
    kept: view.getUint32(20, true),
  }
}

/**
 * All planes, one after the other, as before compression.
 *
 * @param sizes what each plane must measure; the caller has bounded their sum.
 * @throws Ring2Error RING2_E_CHECKSUM for bytes that no encoder makes.
 */
export function readPlanes(bytes: Uint8Array, sizes: readonly number[]): Uint8Array {
  const view = viewOf(bytes)
  let at = HEADER_BYTES + sizes.length * ENTRY_BYTES
  if (bytes.byteLength < at) throw damaged('a table of planes', `${bytes.byteLength} bytes`)
  const out = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0))
  let filled = 0
  for (const [index, size] of sizes.entries()) {
    const entry = HEADER_BYTES + index * ENTRY_BYTES
    const method = view.getUint32(entry, true)
    const stored = view.getUint32(entry + 4, true)
    const decoded = view.getUint32(entry + 8, true)
    if (decoded !== size) throw damaged(`a plane of ${size} bytes`, `one of ${decoded}`)
    if (stored > bytes.byteLength - at) throw damaged(`${stored} more bytes`, 'the end')
    out.set(readPlane(method, bytes.subarray(at, at + stored), size), filled)
    filled += size
    at += stored
  }
  if (at !== bytes.byteLength) throw damaged('the end', `${bytes.byteLength - at} more bytes`)
  return out
}

function readPlane(method: number, stored: Uint8Array, size: number): Uint8Array {
  if (method === METHOD_RAW) {
    if (stored.byteLength === size) return stored
    throw damaged(`${size} bytes of a plane`, `${stored.byteLength}`)
  }
  if (method !== METHOD_ZSTD) throw damaged('method 0 or 1 of a plane', `${method}`)
  const content = inflate(stored, size)
  if (content.byteLength === size) return content
  throw damaged(`${size} bytes in a zstd frame`, `${content.byteLength}`)
}

function inflate(stored: Uint8Array, size: number): Uint8Array {
  try {
    return zstdDecompressSync(stored, {
      params: { [constants.ZSTD_d_windowLogMax]: codecLimits.zstdWindowLogMax },
      maxOutputLength: Math.max(1, size),
      chunkSize: Math.max(codecLimits.zstdChunkBytesMin, size),
    })
  } catch (cause) {
    const actual = cause instanceof Error ? cause.message : String(cause)
    throw damaged(`a zstd frame of ${size} bytes`, actual, cause)
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Bytes that are no payload of a codec: damaged, or another writer's. */
export function damaged(expected: string, actual: string, cause?: unknown): Ring2Error {
  return new Ring2Error('RING2_E_CHECKSUM', {
    expected: `${expected} in an encoded payload`,
    actual,
    ...(cause === undefined ? {} : { cause }),
  })
}
