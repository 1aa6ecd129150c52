/**
 * Writes one complete Parquet file from rows.
 *
 * The footer and every small column come from hyparquet-writer. The pages of the payload column are
 * made here, so that payload bytes reach the file by reference: PLAIN, UNCOMPRESSED, no statistics
 * (they would hold whole payloads), an offset index so that one row can be read alone.
 *
 * Invariants: the file exists under its name only when it is complete; after an error there is none.
 * Not here: names of files (keys.ts), when to write (tensor-sink.ts).
 */

import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import type { OffsetIndex } from 'hyparquet'
import { ParquetWriter } from 'hyparquet-writer'
import { writePageHeader } from 'hyparquet-writer/src/datapage.js'
import { Ring2Error } from '../errors.ts'
import { parquetLimits } from '../limits.ts'
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
  for (const group of rowGroups(rows, payload)) {
    const columnData = columns.map((column) => ({
      name: column.name,
      data: group.map(column.value),
    }))
    parquet.write({
      columnData,
      rowGroupSize: group.length,
      pageSize: parquetLimits.columnPageBytes,
    })
    if (payload !== null) writePayload(parquet, writer, payload, group)
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

/** Adds the payload's column chunk to the row group that `parquet` has just written. */
function writePayload<Row>(
  parquet: ParquetWriter,
  writer: GatherWriter,
  payload: PayloadColumn<Row>,
  rows: readonly Row[],
): void {
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
  const chunkBytes = BigInt(writer.offset - chunkStart)
  const chunk = {
    meta_data: {
      type: 'BYTE_ARRAY' as const,
      encodings: ['PLAIN' as const],
      path_in_schema: [payload.name],
      codec: 'UNCOMPRESSED' as const,
      num_values: BigInt(rows.length),
      total_compressed_size: chunkBytes,
      total_uncompressed_size: chunkBytes,
      data_page_offset: BigInt(chunkStart),
    },
    file_offset: BigInt(chunkStart),
  }
  const group = parquet.row_groups.at(-1)
  if (group === undefined) throw new Error('the payload has no row group')
  group.columns.push(chunk)
  group.total_byte_size += chunkBytes
  group.total_compressed_size = (group.total_compressed_size ?? 0n) + chunkBytes
  parquet.pendingIndexes.push({ chunk, offsetIndex })
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
