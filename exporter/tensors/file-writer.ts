/**
 * Writes one complete Parquet file from rows.
 *
 * The footer and the small columns (column-chunks.ts) come from hyparquet-writer; the pages of the
 * payload (payload-pages.ts) refer to payload bytes, which reach the file without a copy.
 *
 * Payload pages of all row groups come first, then every other column of all row groups, indexes
 * and the footer: one read of that tail is enough to know every row and where its payload lies.
 *
 * Invariants: the file exists under its name only when it is complete; after an error there is
 * none. Not here: names of files (keys.ts), when to write (tensor-sink.ts).
 */

import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import type { SchemaElement, SchemaTree } from 'hyparquet'
import { ParquetWriter } from 'hyparquet-writer'
import { schemaPathResolver } from 'hyparquet-writer/src/schema.js'
import { parquetLimits } from '../limits.ts'
import { type WrittenChunk, writeColumnChunk } from './column-chunks.ts'
import { createGatherWriter } from './gather-writer.ts'
import { writeOffsetIndex, writePayloadChunk } from './payload-pages.ts'
import { type Column, type PayloadColumn, schemaElements } from './schema.ts'

export const PARTIAL_SUFFIX = '.partial'

export interface ParquetFileOptions<Row> {
  readonly path: string
  readonly columns: readonly Column<Row>[]
  readonly payload: PayloadColumn<Row> | null
  readonly rows: readonly Row[]
  readonly metadata: Readonly<Record<string, string>>
  /** Waits until the disk has the bytes, for stores that must survive a power cut. */
  readonly fsync: boolean
}

/** What is known of a file once it is written; named as the catalogue names it. */
export interface WrittenFile {
  readonly bytes: number
  /** Offset of the first byte that is not payload. */
  readonly tail_start: number
}

/** Writes the file. Throws what the system or the encoder throws. */
export function writeParquetFile<Row>(options: ParquetFileOptions<Row>): WrittenFile {
  const partial = options.path + PARTIAL_SUFFIX
  const fd = openSync(partial, 'w', 0o640)
  let written: WrittenFile
  try {
    written = writeAll(fd, options)
    if (options.fsync) fsyncSync(fd)
  } catch (error) {
    closeSync(fd)
    rmSync(partial, { force: true })
    throw error
  }
  closeSync(fd)
  renameSync(partial, options.path)
  return written
}

function writeAll<Row>(fd: number, options: ParquetFileOptions<Row>): WrittenFile {
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
  const groups = [...rowGroups(rows, payload)]
  const payloads =
    payload === null
      ? []
      : groups.map((group) => writePayloadChunk(writer, payload.name, group.map(payload.value)))
  const tail_start = writer.offset
  for (const [index, group] of groups.entries()) {
    const written: WrittenChunk[] = columns.map((column) =>
      writeColumnChunk(writer, column, leafOf(column.name), group),
    )
    const data = payloads[index]
    finishRowGroup(parquet, data === undefined ? written : [data, ...written], group.length)
  }
  for (const chunk of payloads) writeOffsetIndex(writer, chunk)
  parquet.finish()
  return { bytes: writer.offset, tail_start }
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
): void {
  const columns = written.map((one) => one.chunk)
  const sizes = columns.map((chunk) => chunk.meta_data?.total_uncompressed_size ?? 0n)
  const bytes = sizes.reduce((sum, size) => sum + size, 0n)
  parquet.row_groups.push({
    columns,
    total_byte_size: bytes,
    num_rows: BigInt(rows),
    total_compressed_size: bytes,
  })
  parquet.num_rows += BigInt(rows)
  parquet.pendingIndexes.push(...written)
}
