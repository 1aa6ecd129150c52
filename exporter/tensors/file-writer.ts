/**
 * Writes one complete Parquet file from rows.
 *
 * The footer and the small columns (column-chunks.ts) come from hyparquet-writer. The pages of the
 * payload column are made here, so that payload bytes reach the file by reference: PLAIN,
 * UNCOMPRESSED, no statistics (they would hold whole payloads), an offset index so that one row can
 * be read alone.
 *
 * Invariants: the file exists under its name only when it is complete; after an error there is
 * none. Not here: names of files (keys.ts), when to write (tensor-sink.ts).
 */

import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import type { ColumnChunk, OffsetIndex, SchemaElement, SchemaTree } from 'hyparquet'
import { ParquetWriter } from 'hyparquet-writer'
import { writePageHeader } from 'hyparquet-writer/src/datapage.js'
import { schemaPathResolver } from 'hyparquet-writer/src/schema.js'
import { Ring2Error } from '../errors.ts'
import { parquetLimits } from '../limits.ts'
import { type WrittenChunk, writeColumnChunk } from './column-chunks.ts'
import { createGatherWriter, type GatherWriter } from './gather-writer.ts'
import { type Column, type PayloadColumn, schemaElements } from './schema.ts'

export const PARTIAL_SUFFIX = '.partial'

/** Sizes of a page are 32-bit in the format. */
const PAYLOAD_BYTES_MAX = 2 ** 31 - 2 ** 16
const LENGTH_PREFIX_BYTES = 4

export interface ParquetFileOptions<Row> {
  readonly path: string
  readonly columns: readonly Column<Row>[]
  readonly payload: PayloadColumn<Row> | null
  readonly rows: readonly Row[]
  readonly metadata: Readonly<Record<string, string>>
  /** Waits until the disk has the bytes, for stores that must survive a power cut. */
  readonly fsync: boolean
}

/**
 * Writes the file and returns its size in bytes. Throws what the system or the encoder throws.
 */
export function writeParquetFile<Row>(options: ParquetFileOptions<Row>): number {
  const partial = options.path + PARTIAL_SUFFIX
  const fd = openSync(partial, 'w', 0o640)
  let bytes: number
  try {
    bytes = writeAll(fd, options)
    if (options.fsync) fsyncSync(fd)
  } catch (error) {
    closeSync(fd)
    rmSync(partial, { force: true })
    throw error
  }
  closeSync(fd)
  renameSync(partial, options.path)
  return bytes
}

function writeAll<Row>(fd: number, options: ParquetFileOptions<Row>): number {
  const { columns, payload, rows, metadata } = options
  const writer = createGatherWriter(fd)
  const parquet = new ParquetWriter({
    writer,
    schema: schemaElements(columns, payload),
    codec: 'UNCOMPRESSED',
    statisticsTruncateLength: parquetLimits.statisticsTruncateBytes,
    kvMetadata: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    createdBy: 'ring2-exporter version 0.1.0',
  })
  const leafOf = leafResolver(parquet.schema)
  for (const group of rowGroups(rows, payload)) {
    const start = writer.offset
    const written: WrittenChunk[] = columns.map((column) =>
      writeColumnChunk(writer, column, leafOf(column.name), group),
    )
    if (payload !== null) written.push(writePayload(writer, payload, group))
    finishRowGroup(parquet, written, group.length, writer.offset - start)
  }
  parquet.finish()
  return writer.offset
}

function* rowGroups<Row>(
  rows: readonly Row[],
  payload: PayloadColumn<Row> | null,
): Generator<readonly Row[]> {
  let start = 0
  let bytes = 0
  for (const [index, row] of rows.entries()) {
    const size = payload === null ? 0 : payload.value(row).byteLength
    const count = index - start
    const over = bytes + size > parquetLimits.rowGroupBytesMax
    if (count > 0 && (over || count >= parquetLimits.rowGroupRowsMax)) {
      yield rows.slice(start, index)
      start = index
      bytes = 0
    }
    bytes += size
  }
  if (start < rows.length) yield rows.slice(start)
}

/** The path from the root to the one leaf of a column. */
function leafResolver(schema: SchemaElement[]): (name: string) => SchemaTree[] {
  const resolve = schemaPathResolver(schema)
  return (name) => {
    const path = resolve([name])
    for (let node = path.at(-1)?.children[0]; node !== undefined; node = node.children[0]) {
      path.push(node)
    }
    return path
  }
}

function finishRowGroup(
  parquet: ParquetWriter,
  written: readonly WrittenChunk[],
  rows: number,
  bytes: number,
): void {
  const columns = written.map((one) => one.chunk)
  const sizes = columns.map((chunk) => chunk.meta_data?.total_uncompressed_size ?? 0n)
  parquet.row_groups.push({
    columns,
    total_byte_size: sizes.reduce((sum, size) => sum + size, 0n),
    num_rows: BigInt(rows),
    total_compressed_size: BigInt(bytes),
  })
  parquet.num_rows += BigInt(rows)
  parquet.pendingIndexes.push(...written)
}

/** Writes the payload's column chunk, whose pages refer to the payloads. */
function writePayload<Row>(
  writer: GatherWriter,
  payload: PayloadColumn<Row>,
  rows: readonly Row[],
): WrittenChunk {
  const chunkStart = writer.offset
  const offsetIndex: OffsetIndex = { page_locations: [] }
  let firstRow = 0
  for (const page of payloadPages(rows.map(payload.value))) {
    const pageStart = writer.offset
    writePayloadPage(writer, page)
    offsetIndex.page_locations.push({
      offset: BigInt(pageStart),
      compressed_page_size: writer.offset - pageStart,
      first_row_index: BigInt(firstRow),
    })
    firstRow += page.length
  }
  const bytes = BigInt(writer.offset - chunkStart)
  const chunk: ColumnChunk = {
    meta_data: {
      type: 'BYTE_ARRAY',
      encodings: ['PLAIN'],
      path_in_schema: [payload.name],
      codec: 'UNCOMPRESSED',
      num_values: BigInt(rows.length),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(chunkStart),
    },
    file_offset: BigInt(chunkStart),
  }
  return { chunk, offsetIndex }
}

function* payloadPages(payloads: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
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

function writePayloadPage(writer: GatherWriter, payloads: readonly Uint8Array[]): void {
  let size = 0
  for (const payload of payloads) size += payload.byteLength + LENGTH_PREFIX_BYTES
  if (size > PAYLOAD_BYTES_MAX) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `one tensor of at most ${PAYLOAD_BYTES_MAX} bytes`,
      actual: `${size} bytes`,
      action: 'Capture fewer tokens per step; a Parquet page cannot hold more.',
    })
  }
  writePageHeader(writer, {
    type: 'DATA_PAGE_V2',
    uncompressed_page_size: size,
    compressed_page_size: size,
    data_page_header_v2: {
      num_values: payloads.length,
      num_nulls: 0,
      num_rows: payloads.length,
      encoding: 'PLAIN',
      definition_levels_byte_length: 0,
      repetition_levels_byte_length: 0,
      is_compressed: false,
    },
  })
  for (const payload of payloads) {
    writer.appendUint32(payload.byteLength)
    writer.appendReference(payload)
  }
}
