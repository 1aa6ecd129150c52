/**
 * Where the pages of a column chunk lie (offset index), and what lies in them (column index):
 * readers that filter by a column read only the pages of the others that hold the rows they want.
 *
 * There may be a page per payload, so the offset index is written field by field; the general
 * Thrift writer would cost several times the write of a small payload's page.
 *
 * Source: https://github.com/apache/parquet-format/blob/master/PageIndex.md
 */

import type { ColumnChunk } from 'hyparquet'
import type { Writer } from 'hyparquet-writer'
import { serializeTCompactProtocol } from 'hyparquet-writer/src/thrift.js'

// A field's head in the compact protocol: distance to the field before (4 bits), type (4 bits).
const NEXT_I32 = 0x15
const NEXT_I64 = 0x16
const NEXT_LIST = 0x19
const STRUCT = 0x0c
const STOP = 0
const LIST_SIZE_SHORT_MAX = 14

const UNORDERED = 0
const ASCENDING = 1

export interface PageLocation {
  readonly offset: number
  readonly bytes: number
  readonly firstRow: number
}

/** Bounds of one page; null where it holds no value. */
export interface PageBounds {
  /** As the PLAIN encoding has them; a long text is cut, its maximum rounded up. */
  readonly min: Uint8Array | null
  readonly max: Uint8Array | null
  readonly nulls: number
}

export interface PageBoundsList {
  readonly pages: readonly PageBounds[]
  /** Neither minima nor maxima ever go down. */
  readonly ascending: boolean
}

/** Writes the offset index here, and its place into the chunk. */
export function writeOffsetIndex(
  writer: Writer,
  chunk: ColumnChunk,
  pages: readonly PageLocation[],
): void {
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

/** Writes the column index here, and its place into the chunk. */
export function writeColumnIndex(writer: Writer, chunk: ColumnChunk, bounds: PageBoundsList): void {
  const start = writer.offset
  const { pages, ascending } = bounds
  const none = new Uint8Array(0)
  serializeTCompactProtocol(writer, {
    field_1: pages.map(({ min }) => min === null),
    field_2: pages.map(({ min }) => min ?? none),
    field_3: pages.map(({ max }) => max ?? none),
    field_4: ascending ? ASCENDING : UNORDERED,
    field_5: pages.map(({ nulls }) => BigInt(nulls)),
  })
  chunk.column_index_offset = BigInt(start)
  chunk.column_index_length = writer.offset - start
}

/** A number that is not negative, below 2^52: zigzag doubles it. */
export function appendZigZag(writer: Writer, value: number): void {
  let rest = value * 2
  while (rest >= 0x80) {
    writer.appendUint8((rest % 0x80) + 0x80)
    rest = Math.floor(rest / 0x80)
  }
  writer.appendUint8(rest)
}
