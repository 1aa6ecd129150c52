/**
 * Opens Parquet objects of the store for reading by row ranges. The only file that reads Parquet.
 *
 * Footers, with the tails they end, are kept, as objects never change: at most
 * `answerLimits.footersMax` of them and `answerLimits.tailsBytesMax` bytes. A file that cannot be read
 * is RING2_E_STORE naming its key. INT64 comes as bigint, timestamps as bigint
 * microseconds, BYTE_ARRAY as bytes.
 */

import {
  type AsyncBuffer,
  type FileMetaData,
  parquetReadObjects,
  type SchemaElement,
} from 'hyparquet'
import { errorText, Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { damaged, type KnownFile, type OpenFile, openFile, tailStartOf } from './parquet-file.ts'
import { tensorPayload } from './schema.ts'

export type ParquetRow = Readonly<Record<string, unknown>>

export interface ParquetSource {
  /** Rows [rowStart, rowEnd) with these columns. Reads the pages that hold them and no others. */
  read(
    key: string,
    columns: readonly string[],
    rowStart: number,
    rowEnd: number,
  ): Promise<ParquetRow[]>
  /** Rows in all. */
  rows(key: string): Promise<number>
  /** Names of its columns: a file of an earlier version may lack some. */
  columns(key: string): Promise<ReadonlySet<string>>
  /** Its columns as the footer has them, its root first. */
  schema(key: string): Promise<readonly SchemaElement[]>
  /** Key-value pairs of the footer. */
  metadata(key: string): Promise<ReadonlyMap<string, string>>
  /** Where everything but payloads begins; null where payloads do not come first. */
  tailStart(key: string): Promise<number | null>
}

export interface ParquetSourceOptions {
  /** What the catalogue knows of a file; without it the store is asked for its size. */
  readonly knownFile?: (key: string) => KnownFile | null
}

interface KeptFile {
  readonly opening: Promise<OpenFile>
  /** 0 while it is being opened. */
  bytes: number
}

export function createParquetSource(
  store: ObjectStore,
  options: ParquetSourceOptions = {},
): ParquetSource {
  // Insertion order is age: a file that is used again moves to the end.
  const kept = new Map<string, KeptFile>()

  function open(key: string): Promise<OpenFile> {
    const known = kept.get(key) ?? startOpening(key)
    kept.delete(key)
    kept.set(key, known)
    dropOldest()
    return known.opening
  }

  function startOpening(key: string): KeptFile {
    const known = options.knownFile?.(key) ?? null
    const file: KeptFile = { opening: openFile(store, key, known), bytes: 0 }
    file.opening.then(
      ({ keptBytes }) => {
        file.bytes = keptBytes
        dropOldest()
      },
      // A file that failed is tried again at the next request.
      () => kept.delete(key),
    )
    return file
  }

  function dropOldest(): void {
    let bytes = 0
    for (const file of kept.values()) bytes += file.bytes
    for (const [key, file] of kept) {
      const fits = kept.size <= answerLimits.footersMax && bytes <= answerLimits.tailsBytesMax
      if (fits || kept.size === 1) return
      kept.delete(key)
      bytes -= file.bytes
    }
  }

  async function read(
    key: string,
    columns: readonly string[],
    rowStart: number,
    rowEnd: number,
  ): Promise<ParquetRow[]> {
    const { file, metadata } = await open(key)
    const total = Number(metadata.num_rows)
    if (rowStart < 0 || rowEnd > total) {
      throw damaged(key, `rows ${rowStart} to ${rowEnd}`, `${total} rows`)
    }
    if (rowStart >= rowEnd) return []
    const rows = await readRows(key, file, metadata, columns, rowStart, rowEnd)
    if (rows.length === rowEnd - rowStart) return rows
    throw damaged(key, `${rowEnd - rowStart} rows`, `${rows.length}`)
  }

  return {
    read,
    rows: async (key) => Number((await open(key)).metadata.num_rows),
    columns: async (key) =>
      new Set((await open(key)).metadata.schema.slice(1).map(({ name }) => name)),
    schema: async (key) => (await open(key)).metadata.schema,
    metadata: async (key) => {
      const pairs = (await open(key)).metadata.key_value_metadata ?? []
      return new Map(pairs.map((pair) => [pair.key, pair.value ?? '']))
    },
    tailStart: async (key) => tailStartOf((await open(key)).metadata, tensorPayload.name),
  }
}

async function readRows(
  key: string,
  file: AsyncBuffer,
  metadata: FileMetaData,
  columns: readonly string[],
  rowStart: number,
  rowEnd: number,
): Promise<ParquetRow[]> {
  try {
    return await parquetReadObjects({
      file,
      metadata,
      columns: [...columns],
      rowStart,
      rowEnd,
      useOffsetIndex: true,
      utf8: false,
      parsers: { timestampFromMicroseconds: (micros: bigint) => micros },
    })
  } catch (error) {
    if (error instanceof Ring2Error) throw error
    throw damaged(key, 'readable pages', errorText(error))
  }
}
