/**
 * Opens Parquet objects of the store for reading by row ranges. The only file that reads Parquet.
 *
 * Footers are kept (objects never change), at most `answerLimits.footersMax` of them. A file that
 * cannot be read is RING2_E_STORE naming its key. INT64 comes as bigint, timestamps as bigint
 * microseconds, BYTE_ARRAY as bytes.
 */

import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  type SchemaElement,
} from 'hyparquet'
import { errorText, Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import { type ObjectStore, objectMissing } from '../store/object-store.ts'

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
}

interface OpenFile {
  readonly file: AsyncBuffer
  readonly metadata: FileMetaData
}

/** First read of a file, from its end: holds the footer of all but very large files. */
const FOOTER_FETCH_BYTES = 64 * 1024
const TAIL_BYTES = 8

export function createParquetSource(store: ObjectStore): ParquetSource {
  // Insertion order is age: a footer that is used again moves to the end.
  const footers = new Map<string, Promise<OpenFile>>()

  function open(key: string): Promise<OpenFile> {
    const known = footers.get(key) ?? openFile(store, key)
    footers.delete(key)
    footers.set(key, known)
    const oldest = footers.keys().next().value
    if (footers.size > answerLimits.footersMax && oldest !== undefined) footers.delete(oldest)
    // A file that failed is tried again at the next request.
    known.catch(() => footers.delete(key))
    return known
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

async function openFile(store: ObjectStore, key: string): Promise<OpenFile> {
  const byteLength = await store.size(key)
  if (byteLength === null) throw objectMissing(key, 'the store')
  const file: AsyncBuffer = {
    byteLength,
    slice: async (start, end) => {
      const bytes = await store.getRange(key, start, (end ?? byteLength) - start)
      return exactBuffer(bytes)
    },
  }
  await checkFooterSize(file, key)
  try {
    const initialFetchSize = FOOTER_FETCH_BYTES
    return { file, metadata: await parquetMetadataAsync(file, { initialFetchSize }) }
  } catch (error) {
    if (error instanceof Ring2Error) throw error
    throw damaged(key, 'a Parquet footer', errorText(error))
  }
}

/** A damaged length must not make us load half the file as a footer. */
async function checkFooterSize(file: AsyncBuffer, key: string): Promise<void> {
  if (file.byteLength <= FOOTER_FETCH_BYTES) return
  const tail = new DataView(await file.slice(file.byteLength - TAIL_BYTES))
  const bytes = tail.byteLength === TAIL_BYTES ? tail.getUint32(0, true) : 0
  if (bytes <= answerLimits.footerBytesMax) return
  throw damaged(key, `a footer of at most ${answerLimits.footerBytesMax} bytes`, `${bytes}`)
}

function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = bytes
  if (buffer instanceof ArrayBuffer && byteOffset === 0 && byteLength === buffer.byteLength) {
    return buffer
  }
  return new Uint8Array(bytes).buffer
}

function damaged(key: string, expected: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `${expected} in ${key}`,
    actual,
    action: 'Restore the object from a copy, or remove it; other files are not affected.',
  })
}
