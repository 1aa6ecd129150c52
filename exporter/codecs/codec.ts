/**
 * Decodes a stored payload by the name in its row's `encoding`. Formats and bounds: docs/codecs.md.
 *
 * What comes back has the size that the row says, or there is an error: nothing larger is ever made.
 * Whether the elements are the right ones is for the row's checksum. Not here: encoding
 * (codec-encode.ts), the container (codec-container.ts).
 */

import { codecBounds, dequantise, joinPlanes, quantisedBytes } from '../../collector/index.ts'
import { asRing2Error, Ring2Error } from '../errors.ts'
import { dtypeOf } from '../tensors/dtypes.ts'
import { type ContainerFacts, damaged, readHeader, readPlanes } from './container.ts'
import { BOUNDED, encodings, LOSSLESS, RAW } from './plan.ts'

/** Kinds in the container's header. */
export const containerKinds = { planes: 1, absmax: 2 } as const

/** What the row says of its elements. */
export interface PayloadFacts {
  readonly dtype: string
  /** Bytes of the elements themselves. */
  readonly data_bytes: number
}

/**
 * The elements, row-major and little-endian, `facts.data_bytes` long.
 *
 * @throws Ring2Error RING2_E_CHECKSUM for a payload that is damaged; RING2_E_STORE for an encoding
 *   that this version does not know.
 */
export function decodePayload(
  encoding: string,
  bytes: Uint8Array,
  facts: PayloadFacts,
): Uint8Array {
  if (encoding === RAW) return bytes
  if (encoding !== LOSSLESS && encoding !== BOUNDED) throw unknownEncoding(encoding)
  const header = readHeader(bytes)
  checkSize(header, facts)
  const kind = encoding === LOSSLESS ? containerKinds.planes : containerKinds.absmax
  if (header.kind !== kind) throw damaged(`kind ${kind}`, `${header.kind}`)
  return kind === containerKinds.planes
    ? decodePlanes(bytes, header, facts)
    : decodeCodes(bytes, header, facts)
}

function unknownEncoding(encoding: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `one of the encodings ${encodings.join(', ')}`,
    actual: JSON.stringify(encoding),
    action: 'Read the file with an exporter of the version that wrote it.',
  })
}

function checkSize(header: ContainerFacts, facts: PayloadFacts): void {
  const { bytes } = dtypeOf(facts.dtype)
  if (header.elementBytes !== bytes) {
    throw damaged(`elements of ${bytes} bytes`, `${header.elementBytes}`)
  }
  const total = header.elements * bytes
  if (total > codecBounds.bytesMax) {
    throw damaged(`at most ${codecBounds.bytesMax} bytes of elements`, `${total}`)
  }
  if (total !== facts.data_bytes) {
    throw damaged(`${facts.data_bytes} bytes of elements`, `${total}`)
  }
}

type Header = ReturnType<typeof readHeader>

function decodePlanes(bytes: Uint8Array, header: Header, facts: PayloadFacts): Uint8Array {
  if (header.planes !== header.elementBytes) {
    throw damaged(`${header.elementBytes} planes`, `${header.planes}`)
  }
  const sizes = Array.from({ length: header.planes }, () => header.elements)
  const planes = readPlanes(bytes, sizes)
  const elements = new Uint8Array(facts.data_bytes)
  joinPlanes(planes, header.elementBytes, elements)
  return elements
}

function decodeCodes(bytes: Uint8Array, header: Header, facts: PayloadFacts): Uint8Array {
  const { elements, row, block, kept } = header
  const shaped =
    row > 0 && elements % row === 0 && block > 0 && block <= codecBounds.blockElementsMax
  if (!shaped || kept > elements || header.planes !== 4) {
    const actual = `${elements} elements in rows of ${row}, blocks of ${block}, ${kept} kept`
    throw damaged('rows of blocks in 4 planes', `${actual}, ${header.planes} planes`)
  }
  const what = { dtype: facts.dtype, row, block }
  const sizes = [...quantisedBytes(what, elements), kept * header.elementBytes]
  const planes = readPlanes(bytes, sizes)
  const decoded = new Uint8Array(facts.data_bytes)
  try {
    dequantise(planes, kept, what, decoded)
  } catch (cause) {
    throw damaged('codes of elements', asRing2Error(cause).actual, cause)
  }
  return decoded
}
