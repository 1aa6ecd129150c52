/**
 * The native kernels of the codecs, as plain functions on this thread: planes of bytes, codes of
 * elements, and frames of LZ4. Not here: compression and the container (docs/codecs.md).
 *
 * They throw Ring2Error RING2_E_ARGUMENT for sizes that do not fit each other and for bytes that no
 * encoder makes.
 */
import { dtypes } from './layout.gen.ts'
import { nativeCall } from './native.ts'

/** Those of native/include/ring2_codec.h. */
export const codecBounds = {
  /** RING2_CODEC_BYTES_MAX: of the elements of one row. */
  bytesMax: 1 << 30,
  /** RING2_ABSMAX_BLOCK_MAX. */
  blockElementsMax: 256,
} as const

const declarations = {
  split:
    'int ring2_planes_split(const void *elements, uint64_t bytes, uint32_t element_bytes, void *planes)',
  join: 'int ring2_planes_join(const void *planes, uint64_t bytes, uint32_t element_bytes, void *elements)',
  entropy: 'double ring2_entropy_bits(const void *data, uint64_t bytes)',
  quantise:
    'int ring2_quantise(const void *elements, uint64_t bytes, uint32_t dtype, uint64_t row, ' +
    'uint32_t block, void *planes, uint64_t planes_bytes, uint64_t *result)',
  dequantise:
    'int ring2_dequantise(const void *planes, uint64_t planes_bytes, uint64_t kept, ' +
    'uint32_t dtype, uint64_t row, uint32_t block, void *elements, uint64_t bytes)',
  lz4Size:
    'int ring2_lz4_size(const void *frame, uint64_t bytes, uint64_t most, uint64_t *content_bytes)',
  lz4Decode:
    'int ring2_lz4_decode(const void *frame, uint64_t bytes, void *out, uint64_t out_bytes)',
}

type Call = ReturnType<typeof nativeCall>

const calls = new Map<keyof typeof declarations, Call>()

function call(name: keyof typeof declarations): Call {
  const known = calls.get(name) ?? nativeCall(declarations[name])
  calls.set(name, known)
  return known
}

const dtypeIds = new Map([...dtypes].map(([id, name]) => [name, id]))

/** Which elements: float32, float16 or bfloat16 in rows of `row`, each in blocks of `block`. */
export interface Quantised {
  readonly dtype: string
  readonly row: number
  readonly block: number
}

/** Byte p of every element, for each p: as many bytes as there are in the elements. */
export function splitPlanes(elements: Uint8Array, elementBytes: number, planes: Uint8Array): void {
  checkRoom(planes, elements.byteLength)
  call('split')(elements, elements.byteLength, elementBytes, planes)
}

export function joinPlanes(planes: Uint8Array, elementBytes: number, elements: Uint8Array): void {
  checkRoom(elements, planes.byteLength)
  call('join')(planes, planes.byteLength, elementBytes, elements)
}

/** Bits that one of these bytes has on average when each is coded by itself, 0 to 8. */
export function entropyBits(bytes: Uint8Array): number {
  return call('entropy')(bytes, bytes.byteLength)
}

/** Bytes of each plane, in their order, but for the elements that are kept as they are. */
export function quantisedBytes(
  { dtype, row, block }: Quantised,
  elements: number,
): readonly [scales: number, high: number, low: number] {
  const blocks = (elements / row) * Math.ceil(row / block)
  const lowBits = dtype === 'float32' ? 2 : 3
  return [2 * blocks, elements, Math.ceil((elements * lowBits) / 8)]
}

/**
 * @param planes as long as all planes are when every element is kept as it is.
 * @returns how many elements are, and the CRC-32C of what a decoder will make.
 */
export function quantise(
  elements: Uint8Array,
  what: Quantised,
  planes: Uint8Array,
): { readonly kept: number; readonly crc32c: number } {
  const result = new BigUint64Array(2)
  const { byteLength } = elements
  const shape = [idOf(what.dtype), what.row, what.block] as const
  call('quantise')(elements, byteLength, ...shape, planes, planes.byteLength, result)
  return { kept: Number(result[0]), crc32c: Number(result[1]) }
}

export function dequantise(
  planes: Uint8Array,
  kept: number,
  what: Quantised,
  elements: Uint8Array,
): void {
  const shape = [idOf(what.dtype), what.row, what.block] as const
  call('dequantise')(planes, planes.byteLength, kept, ...shape, elements, elements.byteLength)
}

/** The content of one LZ4 frame; one of more than `bytesMax` bytes is refused before it is made. */
export function lz4Decode(frame: Uint8Array, bytesMax: number): Uint8Array {
  const size = new BigUint64Array(1)
  call('lz4Size')(frame, frame.byteLength, bytesMax, size)
  const content = new Uint8Array(Number(size[0]))
  call('lz4Decode')(frame, frame.byteLength, content, content.byteLength)
  return content
}

function checkRoom(target: Uint8Array, bytes: number): void {
  if (target.byteLength !== bytes) throw new RangeError(`expected a buffer of ${bytes} bytes`)
}

function idOf(dtype: string): number {
  // The library refuses 0, and every type that it has no codes for.
  return dtypeIds.get(dtype) ?? 0
}
