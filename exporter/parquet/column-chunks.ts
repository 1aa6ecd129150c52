/**
 * Writes one column of one row group: every column but the payload.
 *
 * Values that repeat become codes into a dictionary, in runs; others are written as they are
 * (column-values.ts decides). A chunk is cut into pages at the same rows as its neighbours, or is
 * one page when it holds one value.
 */

import type { ColumnChunk, SchemaElement } from 'hyparquet'
import type { ByteWriter } from 'hyparquet-writer'
import {
  bloomFilter,
  boundsOf,
  chunkStatistics,
  joinBounds,
  pageBounds,
  type ValueBounds,
} from './column-bounds.ts'
import type { ColumnValues, DictionaryValues, GatheredColumn } from './column-values.ts'
import type { GatherWriter } from './gather-writer.ts'
import { encodings, writeDataPageHeader, writeDictionaryPageHeader } from './page-headers.ts'
import type { PageBoundsList, PageLocation } from './page-index.ts'
import { appendBits, appendRuns } from './runs.ts'
import type { Column, ColumnType } from './schema.ts'

export interface WrittenChunk {
  readonly chunk: ColumnChunk
  readonly pages: readonly PageLocation[]
  /** Null where readers do not filter by the column. */
  readonly bounds: PageBoundsList | null
  readonly bloomFilter: Uint32Array | null
}

export interface ChunkOptions {
  /** Names from below the root to the leaf. */
  readonly path: readonly string[]
  readonly leaf: SchemaElement
  readonly pageRows: number
  /** Where a page is put together; its content is lost. */
  readonly scratch: ByteWriter
}

interface Range {
  readonly start: number
  readonly end: number
}

export function writeColumnChunk<Row>(
  writer: GatherWriter,
  column: Column<Row>,
  { elements, lengths }: GatheredColumn,
  options: ChunkOptions,
): WrittenChunk {
  const { scratch, leaf } = options
  const rows = lengths?.length ?? elements.count
  const start = writer.offset
  if (hasDictionary(elements)) writeDictionary(writer, column.type, elements, scratch)
  const dataStart = writer.offset
  const pages: PageLocation[] = []
  const bounds: ValueBounds[] = []
  const pageRows = lengths === null && isConstant(elements) ? rows : options.pageRows
  let levels = 0
  let first = 0
  for (let firstRow = 0; firstRow < rows; firstRow += pageRows) {
    const lastRow = Math.min(rows, firstRow + pageRows)
    const lists = lengths?.subarray(firstRow, lastRow) ?? null
    const count = lists?.reduce((sum, length) => sum + length, 0) ?? lastRow - firstRow
    const range = { start: first, end: first + count }
    const offset = writer.offset
    levels += writePage(writer, column, elements, range, lists, scratch)
    pages.push({ offset, bytes: writer.offset - offset, firstRow })
    if (lists === null) bounds.push(boundsOf(elements, range.start, range.end))
    first += count
  }
  const place = { start, dataStart, end: writer.offset }
  const chunk = describeChunk(options, hasDictionary(elements), levels, place)
  if (lengths !== null) return { chunk, pages, bounds: null, bloomFilter: null }
  if (chunk.meta_data !== undefined) {
    chunk.meta_data.statistics = chunkStatistics(column.type, bounds.reduce(joinBounds))
  }
  return {
    chunk,
    pages,
    bounds: column.type === 'double' ? null : pageBounds(column.type, leaf, bounds),
    bloomFilter: column.bloomFilter ? bloomFilter(elements, leaf) : null,
  }
}

function hasDictionary(elements: ColumnValues): elements is DictionaryValues {
  return elements.kind === 'dictionary' && elements.entries.length > 0
}

function isConstant(values: ColumnValues): boolean {
  if (values.nulls === values.count) return true
  return hasDictionary(values) && values.entries.length === 1 && values.nulls === 0
}

function writeDictionary(
  writer: GatherWriter,
  type: ColumnType,
  { entries }: DictionaryValues,
  scratch: ByteWriter,
): void {
  clear(scratch)
  for (const entry of entries) {
    if (typeof entry === 'string') appendText(scratch, entry)
    else appendNumbers(scratch, type, [entry], 0, 1)
  }
  writeDictionaryPageHeader(writer, scratch.index, entries.length)
  writer.appendCopy(scratch.getBytes())
}

/**
 * Returns how many values the page says it has.
 *
 * @param lengths of the lists of the page's rows; null where rows are single values.
 */
function writePage<Row>(
  writer: GatherWriter,
  column: Column<Row>,
  elements: ColumnValues,
  range: Range,
  lengths: Uint32Array | null,
  page: ByteWriter,
): number {
  clear(page)
  let values = range.end - range.start
  if (lengths !== null) values = appendListLevels(page, lengths)
  else if (column.nullable) appendLevels(page, elements, range)
  appendValues(page, column.type, elements, range)
  const encoding = hasDictionary(elements) ? encodings.plainDictionary : encodings.plain
  writeDataPageHeader(writer, page.index, values, encoding)
  writer.appendCopy(page.getBytes())
  return values
}

function clear(scratch: ByteWriter): void {
  scratch.index = 0
  scratch.offset = 0
}

/** Levels have their length before them. */
function withLength(page: ByteWriter, append: () => void): void {
  const at = page.index
  page.appendUint32(0)
  append()
  page.view.setUint32(at, page.index - at - Uint32Array.BYTES_PER_ELEMENT, true)
}

function appendLevels(page: ByteWriter, { defined }: ColumnValues, { start, end }: Range): void {
  withLength(page, () => {
    if (defined === undefined) appendRuns(page, new Uint8Array(end - start).fill(1), 0, end - start)
    else appendRuns(page, defined, start, end)
  })
}

/** Returns the number of level pairs: one for each element, and one for each empty list. */
function appendListLevels(page: ByteWriter, lengths: Uint32Array): number {
  const count = lengths.reduce((sum, length) => sum + Math.max(1, length), 0)
  const continued = new Uint8Array(count).fill(1)
  const defined = new Uint8Array(count).fill(1)
  let at = 0
  for (const length of lengths) {
    continued[at] = 0
    if (length === 0) defined[at] = 0
    at += Math.max(1, length)
  }
  withLength(page, () => appendBits(page, continued))
  withLength(page, () => appendRuns(page, defined, 0, count))
  return count
}

function appendValues(
  page: ByteWriter,
  type: ColumnType,
  elements: ColumnValues,
  { start, end }: Range,
): void {
  const { defined } = elements
  switch (elements.kind) {
    case 'dictionary': {
      if (elements.entries.length === 0) return
      const codes = elements.codes.subarray(start, end)
      const present = defined === undefined ? codes : codes.filter((_, i) => defined[start + i])
      page.appendUint8(codeBits(elements.entries.length))
      appendRuns(page, present, 0, present.length)
      return
    }
    case 'numbers':
      appendNumbers(page, type, elements.values, start, end, defined)
      return
    case 'texts':
      for (let index = start; index < end; index += 1) {
        if (defined === undefined || defined[index] === 1) {
          appendText(page, elements.values[index] ?? '')
        }
      }
  }
}

function codeBits(entries: number): number {
  // Some readers expect at least one bit.
  return Math.max(1, 32 - Math.clz32(entries - 1))
}

const textEncoder = new TextEncoder()

function appendText(page: ByteWriter, text: string): void {
  const bytes = textEncoder.encode(text)
  page.appendUint32(bytes.byteLength)
  page.appendBytes(bytes)
}

const WORD = 2 ** 32

/** Little-endian numbers of the column's width, without those that are null. */
function appendNumbers(
  page: ByteWriter,
  type: ColumnType,
  values: ArrayLike<number>,
  start: number,
  end: number,
  defined?: Uint8Array,
): void {
  const width = type === 'int32' ? 4 : 8
  page.ensure((end - start) * width)
  if (type === 'double' && defined === undefined && values instanceof Float64Array) {
    // In memory as in the file: every machine this runs on is little-endian.
    page.appendBytes(
      new Uint8Array(values.buffer, values.byteOffset + start * width, (end - start) * width),
    )
    return
  }
  const { view } = page
  let at = page.index
  for (let index = start; index < end; index += 1) {
    if (defined !== undefined && defined[index] === 0) continue
    const value = values[index] as number
    if (type === 'double') view.setFloat64(at, value, true)
    else {
      view.setInt32(at, value, true)
      if (width === 8) view.setInt32(at + 4, Math.floor(value / WORD), true)
    }
    at += width
  }
  page.offset += at - page.index
  page.index = at
}

interface ChunkPlace {
  readonly start: number
  readonly dataStart: number
  readonly end: number
}

function describeChunk(
  { path, leaf }: ChunkOptions,
  dictionary: boolean,
  values: number,
  { start, dataStart, end }: ChunkPlace,
): ColumnChunk {
  if (leaf.type === undefined) throw new Error(`column ${path.join('.')} has no physical type`)
  const bytes = BigInt(end - start)
  return {
    meta_data: {
      type: leaf.type,
      encodings: [dictionary ? 'PLAIN_DICTIONARY' : 'PLAIN', 'RLE'],
      path_in_schema: [...path],
      codec: 'UNCOMPRESSED',
      num_values: BigInt(values),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(dataStart),
      ...(dictionary ? { dictionary_page_offset: BigInt(start) } : {}),
    },
    file_offset: BigInt(start),
  }
}
