/**
 * Opens one Parquet object so that few requests reach the store. Not here: reading rows.
 *
 * A file whose payloads come first (`tailStart`) is opened by one request: its tail, which holds
 * everything but payloads, is kept, and whatever is read of it later costs no request. Of other
 * files, and of a very large tail, the end with the footer is kept. All else is read when asked for,
 * neighbouring ranges that are asked for together by one request.
 */

import { type AsyncBuffer, type FileMetaData, parquetMetadata } from 'hyparquet'
import { errorText, Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import { type ObjectStore, objectMissing } from '../store/object-store.ts'
import { createRangeReader } from './range-reader.ts'

export interface OpenFile {
  readonly file: AsyncBuffer
  readonly metadata: FileMetaData
  /** Bytes of it that are kept. */
  readonly keptBytes: number
}

/** What is known of a file without asking the store. */
export interface KnownFile {
  readonly bytes: number
  readonly tailStart: number | null
}

/** Footer length and magic. */
const END_BYTES = 8

/** The end of a file, as far as it is kept. */
interface Tail {
  readonly start: number
  readonly bytes: Uint8Array<ArrayBuffer>
}

/**
 * @param known null asks the store for the size. Where a file is not as it is known, as by a stale
 *   catalogue, the store is asked too.
 */
export async function openFile(
  store: ObjectStore,
  key: string,
  known: KnownFile | null,
): Promise<OpenFile> {
  try {
    if (known !== null) return await openKnown(store, key, known)
  } catch {
    // The file itself tells better what is wrong, if anything is.
  }
  const bytes = await store.size(key)
  if (bytes === null) throw objectMissing(key, 'the store')
  return openKnown(store, key, { bytes, tailStart: null })
}

async function openKnown(
  store: ObjectStore,
  key: string,
  { bytes: byteLength, tailStart }: KnownFile,
): Promise<OpenFile> {
  const tail = await readTail(store, key, byteLength, tailStart)
  const ranges = createRangeReader((start, end) => readExactly(store, key, start, end))
  const file: AsyncBuffer = {
    byteLength,
    slice: async (start, end) => {
      const to = end ?? byteLength
      if (start < tail.start) return ranges.read(start, to)
      return tail.bytes.buffer.slice(start - tail.start, to - tail.start)
    },
  }
  return { file, metadata: parseFooter(key, tail), keptBytes: tail.bytes.byteLength }
}

async function readTail(
  store: ObjectStore,
  key: string,
  byteLength: number,
  tailStart: number | null,
): Promise<Tail> {
  const whole = tailStart !== null && byteLength - tailStart <= answerLimits.tailBytesMax
  const start = whole ? tailStart : Math.max(0, byteLength - answerLimits.footerFetchBytes)
  const bytes = await readExactly(store, key, start, byteLength)
  const footer = footerBytes(key, bytes)
  if (footer <= bytes.byteLength) return { start, bytes }
  const from = byteLength - footer
  if (from < 0) throw damaged(key, 'a Parquet footer', `one of ${footer} bytes`)
  const before = await readExactly(store, key, from, start)
  const joined = new Uint8Array(footer)
  joined.set(before)
  joined.set(bytes, before.byteLength)
  return { start: from, bytes: joined }
}

/** Bytes of the footer with its end. A damaged length must not make us load half the file. */
function footerBytes(key: string, tail: Uint8Array): number {
  if (tail.byteLength < END_BYTES) {
    throw damaged(key, 'a Parquet file', `a file of ${tail.byteLength} bytes`)
  }
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength)
  const magic = String.fromCharCode(...tail.subarray(-4))
  if (magic !== 'PAR1') throw damaged(key, 'PAR1 as the last bytes', JSON.stringify(magic))
  const bytes = view.getUint32(tail.byteLength - END_BYTES, true)
  if (bytes <= answerLimits.footerBytesMax) return bytes + END_BYTES
  throw damaged(key, `a footer of at most ${answerLimits.footerBytesMax} bytes`, `${bytes}`)
}

function parseFooter(key: string, tail: Tail): FileMetaData {
  try {
    return parquetMetadata(tail.bytes.buffer)
  } catch (error) {
    throw damaged(key, 'a whole Parquet footer', `a damaged one (${errorText(error)})`)
  }
}

/** Fewer bytes than there should be are a truncated object, and are not taken for data. */
async function readExactly(
  store: ObjectStore,
  key: string,
  start: number,
  end: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await store.getRange(key, start, end - start)
  if (bytes.byteLength !== end - start) {
    throw damaged(key, `bytes ${start} to ${end}`, `${bytes.byteLength} bytes: it is truncated`)
  }
  const { buffer, byteOffset } = bytes
  const exact =
    buffer instanceof ArrayBuffer && byteOffset === 0 && end - start === buffer.byteLength
  return exact ? new Uint8Array(buffer) : new Uint8Array(bytes)
}

/** Where the tail begins, by the footer; null when payloads do not come first. */
export function tailStartOf(metadata: FileMetaData, payload: string): number | null {
  let payloadEnd = 0
  let othersStart = Number.POSITIVE_INFINITY
  for (const group of metadata.row_groups) {
    for (const { meta_data: chunk } of group.columns) {
      if (chunk === undefined) return null
      const start = Number(chunk.dictionary_page_offset ?? chunk.data_page_offset)
      if (chunk.path_in_schema[0] === payload) {
        payloadEnd = Math.max(payloadEnd, start + Number(chunk.total_compressed_size))
      } else {
        othersStart = Math.min(othersStart, start)
      }
    }
  }
  return payloadEnd <= othersStart && Number.isFinite(othersStart) ? othersStart : null
}

export function damaged(key: string, expected: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `${expected} in ${key}`,
    actual,
    action: 'Restore the object from a copy, or remove it; other files are not affected.',
  })
}
