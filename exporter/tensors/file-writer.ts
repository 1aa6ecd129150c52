/**
 * Writes one complete Parquet file from rows.
 *
 * The footer and the small columns (column-chunks.ts) come from hyparquet-writer; the pages of the
 * payload (payload-pages.ts) refer to payload bytes, which reach the file without a copy.
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
import { type PayloadChunk, writeOffsetIndex, writePayloadChunk } from './payload-pages.ts'
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
  const payloadChunks: PayloadChunk[] = []
  for (const group of rowGroups(rows, payload)) {
    const start = writer.offset
    const written: WrittenChunk[] = columns.map((column) =>
      writeColumnChunk(writer, column, leafOf(column.name), group),
    )
    if (payload !== null) {
      const chunk = writePayloadChunk(writer, payload.name, group.map(payload.value))
      payloadChunks.push(chunk)
      written.push({ chunk: chunk.chunk })
    }
    finishRowGroup(parquet, written, group.length, writer.offset - start)
  }
  for (const chunk of payloadChunks) writeOffsetIndex(writer, chunk)
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
