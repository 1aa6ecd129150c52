/**
 * The frame of an Arrow IPC stream around the elements of one tensor. The only file that imports
 * Arrow, and only when it is asked for: it takes longer to load than most commands take.
 *
 * One column and one record batch. A tensor of one axis is a plain column; of more, a column of the
 * canonical extension type `arrow.fixed_shape_tensor`, stored as FixedSizeList: one entry per index
 * of the first axis, each of the shape of the others. Arrow has no bfloat16, so such elements are
 * their bits (uint16), and bool is one byte each (uint8), as it is stored; the metadata's `dtype`
 * says so.
 *
 * https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
 * https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor
 */

import type { DataType } from 'apache-arrow'
import { type Frame, type TensorFacts, textMetadata } from './frames.ts'

const ALIGNMENT = 8
/** Before the metadata of every message, and alone with a zero at the end of the stream. */
const CONTINUATION = -1

export async function arrowFrame(tensor: TensorFacts): Promise<Frame> {
  const arrow = await import('apache-arrow')
  const { Field, FixedSizeList, Message, MessageHeader, MetadataVersion, Schema } = arrow
  const [rows = 1, ...rest] = tensor.shape
  const width = rest.reduce((product, size) => product * size, 1)
  const elements = { length: rows * width, nullCount: 0 }
  const bytes = elements.length * tensor.dtype.bytes
  const element = elementType(arrow, tensor.dtype.name)
  const list = new FixedSizeList(width, new Field('item', element, false))
  const extension = new Map([
    ['ARROW:extension:name', 'arrow.fixed_shape_tensor'],
    ['ARROW:extension:metadata', JSON.stringify({ shape: rest })],
  ])
  const field =
    rest.length === 0
      ? new Field<DataType>(tensor.name, element, false)
      : new Field<DataType>(tensor.name, list, false, extension)
  const schema = new Schema([field], textMetadata(tensor))
  const padding = -bytes & (ALIGNMENT - 1)
  // Buffers of each node: none says which entries are null, as none is.
  const validity = { offset: 0, length: 0 }
  const values = { offset: 0, length: bytes }
  const batch = {
    length: rows,
    nodes: rest.length === 0 ? [elements] : [{ length: rows, nullCount: 0 }, elements],
    buffers: rest.length === 0 ? [validity, values] : [validity, validity, values],
    compression: null,
  }
  const header = new Message(bytes + padding, MetadataVersion.V5, MessageHeader.RecordBatch, batch)
  const head = [Message.encode(Message.from(schema)), Message.encode(header)].map(withLength)
  return {
    head: Buffer.concat(head),
    tail: Buffer.concat([
      Buffer.alloc(padding),
      Buffer.from(Int32Array.of(CONTINUATION, 0).buffer),
    ]),
  }
}

/** A message's metadata with what stands before it, padded. */
function withLength(metadata: Uint8Array): Buffer {
  const padded = Math.ceil(metadata.byteLength / ALIGNMENT) * ALIGNMENT
  const out = Buffer.alloc(8 + padded)
  out.writeInt32LE(CONTINUATION, 0)
  out.writeInt32LE(padded, 4)
  out.set(metadata, 8)
  return out
}

function elementType(arrow: typeof import('apache-arrow'), dtype: string): DataType {
  switch (dtype) {
    case 'float64':
      return new arrow.Float64()
    case 'float32':
      return new arrow.Float32()
    case 'float16':
      return new arrow.Float16()
    case 'bfloat16':
      return new arrow.Uint16()
    case 'int64':
      return new arrow.Int64()
    case 'int32':
      return new arrow.Int32()
    case 'int16':
      return new arrow.Int16()
    case 'int8':
      return new arrow.Int8()
    default:
      return new arrow.Uint8()
  }
}
