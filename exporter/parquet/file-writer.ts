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
import type { FileMetaData, RowGroup, SchemaElement, SchemaTree } from 'hyparquet'
import { ByteWriter } from 'hyparquet-writer'
import { writeBlooms } from 'hyparquet-writer/src/bloom.js'
import { writeMetadata } from 'hyparquet-writer/src/metadata.js'
import { schemaPathResolver } from 'hyparquet-writer/src/schema.js'
import { parquetLimits } from '../limits.ts'
import { type WrittenChunk, writeColumnChunk } from './column-chunks.ts'
import { createGatherWriter, type GatherWriter } from './gather-writer.ts'
import { writeColumnIndex, writeOffsetIndex } from './page-index.ts'
import { writePayloadChunk } from './payload-pages.ts'
import { objectSource, type RowObjects, type RowRange, type RowSource } from './row-source.ts'
import { type Column, type PayloadColumn, schemaElements } from './schema.ts'

export const PARTIAL_SUFFIX = '.partial'

/** `PAR1` */
const MAGIC = 0x31524150

interface FileOptions<Row> {
  readonly path: string
  readonly columns: readonly Column<Row>[]
  readonly payload: PayloadColumn<Row> | null
  readonly metadata: Readonly<Record<string, string>>
  /** Waits until the disk has the bytes, for stores that must survive a power cut. */
  readonly fsync: boolean
}

export interface ParquetFileOptions<Row> extends FileOptions<Row>, RowObjects<Row> {}

export interface ParquetSourceOptions<Row> extends FileOptions<Row> {
  readonly source: RowSource
}

/** What is known of a file once it is written; named as the catalogue names it. */
export interface WrittenFile {
  readonly bytes: number
  /** Offset of the first byte that is not payload. */
  readonly tail_start: number
}

/** Writes the file. Throws what the system or the encoder throws. */
export function writeParquetFile<Row>(options: ParquetFileOptions<Row>): WrittenFile {
  return writeParquetSource({ ...options, source: objectSource(options) })
}

/** The same of rows that need not be objects. */
export function writeParquetSource<Row>(options: ParquetSourceOptions<Row>): WrittenFile {
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

function writeAll<Row>(fd: number, options: ParquetSourceOptions<Row>): WrittenFile {
  const { columns, payload, source, metadata } = options
  const writer = createGatherWriter(fd)
  writer.appendUint32(MAGIC)
  const groups = [...rowGroups(source)]
  const payloads =
    payload === null
      ? []
      : groups.map((group) => writePayloadChunk(writer, payload.name, source, group))
  const tail_start = writer.offset
  const schema = schemaElements(columns, payload)
  const write = groupWriter(writer, schema, options)
  const chunks = groups.map((group, index) => write(group, payloads[index] ?? null))
  writeIndexes(writer, chunks.flat())
  const footer: FileMetaData = {
    // Nothing here is of version 2, which some readers refuse.
    version: 1,
    created_by: 'ring2-exporter version 0.1.0',
    schema,
    num_rows: BigInt(source.count),
    row_groups: chunks.map((group, index) => rowGroup(group, rowsOf(groups[index]))),
    key_value_metadata: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    metadata_length: 0,
  }
  writeMetadata(writer, footer, parquetLimits.statisticsTruncateBytes)
  writer.appendUint32(MAGIC)
  writer.flushAll()
  return { bytes: writer.offset, tail_start }
}

type WriteGroup = (rows: RowRange, payload: WrittenChunk | null) => WrittenChunk[]

function rowsOf(range: RowRange | undefined): number {
  return range === undefined ? 0 : range.end - range.start
}

/** Writes all columns of a row group but the payload, and returns the chunks of all. */
function groupWriter<Row>(
  writer: GatherWriter,
  schema: SchemaElement[],
  { columns, source }: ParquetSourceOptions<Row>,
): WriteGroup {
  const scratch = new ByteWriter(parquetLimits.gatherChunkBytes)
  const leafOf = leafResolver(schema)
  return (rows, payload) => {
    const payloadBytes = Number(payload?.chunk.meta_data?.total_compressed_size ?? 0n)
    const values = source.gather(rows.start, rows.end)
    const written = columns.map((column, index) => {
      const path = leafOf(column.name).map(({ element }) => element)
      const [leaf, gathered] = [path.at(-1), values[index]]
      if (leaf === undefined || gathered === undefined) {
        throw new Error(`column ${column.name} is not in the schema`)
      }
      return writeColumnChunk(writer, column, gathered, {
        path: path.slice(1).map(({ name }) => name),
        leaf,
        pageRows: pageRows(rowsOf(rows), payloadBytes),
        scratch,
      })
    })
    return payload === null ? written : [payload, ...written]
  }
}

/** All columns of a row group are cut at the same rows: what a reader passes over at once. */
function pageRows(rows: number, payloadBytes: number): number {
  const share = Math.ceil((rows * parquetLimits.pageSpanBytes) / Math.max(1, payloadBytes))
  return Math.min(parquetLimits.pageRowsMax, Math.max(parquetLimits.pageRowsMin, share))
}

/** Column indexes, offset indexes and Bloom filters, each in one piece. */
function writeIndexes(writer: GatherWriter, chunks: readonly WrittenChunk[]): void {
  for (const { chunk, bounds } of chunks) {
    if (bounds !== null) writeColumnIndex(writer, chunk, bounds)
  }
  for (const { chunk, pages } of chunks) writeOffsetIndex(writer, chunk, pages)
  const filtered = chunks.flatMap(({ chunk, bloomFilter }) =>
    bloomFilter === null ? [] : [{ chunk, bloomFilter }],
  )
  writeBlooms(writer, filtered)
}

function* rowGroups(source: RowSource): Generator<RowRange> {
  let start = 0
  let bytes = 0
  for (let end = 0; end < source.count; end += 1) {
    const size = source.payloadBytes(end)
    const over = bytes + size > parquetLimits.rowGroupBytesMax
    if (end > start && (over || end - start >= parquetLimits.rowGroupRowsMax)) {
      yield { start, end }
      start = end
      bytes = 0
    }
    bytes += size
  }
  if (start < source.count) yield { start, end: source.count }
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

function rowGroup(written: readonly WrittenChunk[], rows: number): RowGroup {
  const columns = written.map(({ chunk }) => chunk)
  const sizes = columns.map((chunk) => chunk.meta_data?.total_uncompressed_size ?? 0n)
  const bytes = sizes.reduce((sum, size) => sum + size, 0n)
  return {
    columns,
    total_byte_size: bytes,
    num_rows: BigInt(rows),
    total_compressed_size: bytes,
  }
}
