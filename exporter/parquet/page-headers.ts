/**
 * Headers of data and dictionary pages, field by field in Thrift's compact protocol.
 *
 * Pages are of the first version of the format with the encodings that it has: nothing of the
 * second would make these files smaller or faster, and some readers know only the first.
 *
 * Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
 * (PageHeader, DataPageHeader, DictionaryPageHeader).
 */

import type { Writer } from 'hyparquet-writer'
import { appendZigZag } from './page-index.ts'

export const encodings = { plain: 0, plainDictionary: 2, rle: 3 } as const

const DATA_PAGE = 0
const DICTIONARY_PAGE = 2

// A field's head in the compact protocol: distance to the field before (4 bits), type (4 bits).
const NEXT_I32 = 0x15
const DATA_PAGE_HEADER = 0x2c
const DICTIONARY_PAGE_HEADER = 0x4c
const STOP = 0

/** @param bytes of the page behind the header. */
export function writeDataPageHeader(
  writer: Writer,
  bytes: number,
  values: number,
  encoding: number,
): void {
  writeSizes(writer, DATA_PAGE, bytes)
  writer.appendUint8(DATA_PAGE_HEADER)
  appendField(writer, values)
  appendField(writer, encoding)
  // Of definition and repetition levels.
  appendField(writer, encodings.rle)
  appendField(writer, encodings.rle)
  writer.appendUint8(STOP)
  writer.appendUint8(STOP)
}

export function writeDictionaryPageHeader(writer: Writer, bytes: number, entries: number): void {
  writeSizes(writer, DICTIONARY_PAGE, bytes)
  writer.appendUint8(DICTIONARY_PAGE_HEADER)
  appendField(writer, entries)
  appendField(writer, encodings.plainDictionary)
  writer.appendUint8(STOP)
  writer.appendUint8(STOP)
}

function writeSizes(writer: Writer, type: number, bytes: number): void {
  appendField(writer, type)
  // Uncompressed and compressed.
  appendField(writer, bytes)
  appendField(writer, bytes)
}

function appendField(writer: Writer, value: number): void {
  writer.appendUint8(NEXT_I32)
  appendZigZag(writer, value)
}
