/**
 * The payload column of a row group: pages whose values are references, and their offset index.
 *
 * PLAIN, UNCOMPRESSED, required, no statistics (they would hold whole payloads). A page is some
 * 64 KiB or one row, and the offset index tells where each begins, so that a row can be read alone.
 * There may be a page per row, so page headers and the index are written here field by field; the
 * general Thrift writer would cost several times the write of a small payload's page.
 *
 * Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
 * (PageHeader, DataPageHeaderV2, OffsetIndex), in Thrift's compact protocol.
 */

import type { ColumnChunk } from 'hyparquet'
import { Ring2Error } from '../errors.ts'
import { parquetLimits } from '../limits.ts'
import type { GatherWriter } from './gather-writer.ts'

/** Sizes of a page are 32-bit in the format. */
const PAGE_BYTES_MAX = 2 ** 31 - 2 ** 16
const LENGTH_PREFIX_BYTES = 4

// A field's head in the compact protocol: distance to the field before (4 bits), type (4 bits).
const NEXT_I32 = 0x15
const NEXT_I64 = 0x16
const NEXT_FALSE = 0x12
const NEXT_LIST = 0x19
const FIFTH_NEXT_STRUCT = 0x5c
const STRUCT = 0x0c
const STOP = 0
const LIST_SIZE_SHORT_MAX = 14

const DATA_PAGE_V2 = 3
const PLAIN = 0

interface PageLocation {
  readonly offset: number
  readonly bytes: number
  readonly firstRow: number
}

export interface PayloadChunk {
  readonly chunk: ColumnChunk
  readonly pages: readonly PageLocation[]
}

/** Writes the pages of one row group and returns its column chunk. */
export function writePayloadChunk(
  writer: GatherWriter,
  name: string,
  payloads: readonly Uint8Array[],
): PayloadChunk {
  const chunkStart = writer.offset
  const pages: PageLocation[] = []
  let firstRow = 0
  for (const page of splitIntoPages(payloads)) {
    const offset = writer.offset
    writePage(writer, page)
    pages.push({ offset, bytes: writer.offset - offset, firstRow })
    firstRow += page.length
  }
  const bytes = BigInt(writer.offset - chunkStart)
  const chunk: ColumnChunk = {
    meta_data: {
      type: 'BYTE_ARRAY',
      encodings: ['PLAIN'],
      path_in_schema: [name],
      codec: 'UNCOMPRESSED',
      num_values: BigInt(payloads.length),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(chunkStart),
    },
    file_offset: BigInt(chunkStart),
  }
  return { chunk, pages }
}

/** Writes the offset index behind the row groups, and its place into the chunk. */
export function writeOffsetIndex(writer: GatherWriter, payload: PayloadChunk): void {
  const { chunk, pages } = payload
  const start = writer.offset
  writer.appendUint8(NEXT_LIST)
  if (pages.length <= LIST_SIZE_SHORT_MAX) {
    writer.appendUint8(pages.length * 16 + STRUCT)
  } else {
    writer.appendUint8(0xf0 + STRUCT)
    writer.appendVarInt(pages.length)
  }
  for (const page of pages) {
    writer.appendUint8(NEXT_I64)
    appendZigZag(writer, page.offset)
    writer.appendUint8(NEXT_I32)
    appendZigZag(writer, page.bytes)
    writer.appendUint8(NEXT_I64)
    appendZigZag(writer, page.firstRow)
    writer.appendUint8(STOP)
  }
  writer.appendUint8(STOP)
  chunk.offset_index_offset = BigInt(start)
  chunk.offset_index_length = writer.offset - start
}

function* splitIntoPages(payloads: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
  let page: Uint8Array[] = []
  let bytes = 0
  for (const payload of payloads) {
    const size = payload.byteLength + LENGTH_PREFIX_BYTES
    if (page.length > 0 && bytes + size > parquetLimits.dataPageBytes) {
      yield page
      page = []
      bytes = 0
    }
    page.push(payload)
    bytes += size
  }
  if (page.length > 0) yield page
}

function writePage(writer: GatherWriter, payloads: readonly Uint8Array[]): void {
  let bytes = 0
  for (const payload of payloads) bytes += payload.byteLength + LENGTH_PREFIX_BYTES
  if (bytes > PAGE_BYTES_MAX) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `one tensor of at most ${PAGE_BYTES_MAX} bytes`,
      actual: `${bytes} bytes`,
      action: 'Capture fewer tokens per step; a Parquet page cannot hold more.',
    })
  }
  writePageHeader(writer, bytes, payloads.length)
  for (const payload of payloads) {
    writer.appendUint32(payload.byteLength)
    writer.appendReference(payload)
  }
}

function writePageHeader(writer: GatherWriter, bytes: number, rows: number): void {
  appendField(writer, DATA_PAGE_V2)
  // Uncompressed and compressed size.
  appendField(writer, bytes)
  appendField(writer, bytes)
  // DataPageHeaderV2 is field 8: values, nulls, rows, encoding, bytes of definition and of
  // repetition levels, is_compressed.
  writer.appendUint8(FIFTH_NEXT_STRUCT)
  appendField(writer, rows)
  appendField(writer, 0)
  appendField(writer, rows)
  appendField(writer, PLAIN)
  appendField(writer, 0)
  appendField(writer, 0)
  writer.appendUint8(NEXT_FALSE)
  writer.appendUint8(STOP)
  writer.appendUint8(STOP)
}

function appendField(writer: GatherWriter, value: number): void {
  writer.appendUint8(NEXT_I32)
  appendZigZag(writer, value)
}

/** A number that is not negative, below 2^52: zigzag doubles it. */
function appendZigZag(writer: GatherWriter, value: number): void {
  let rest = value * 2
  while (rest >= 0x80) {
    writer.appendUint8((rest % 0x80) + 0x80)
    rest = Math.floor(rest / 0x80)
  }
  writer.appendUint8(rest)
}
