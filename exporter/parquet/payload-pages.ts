/**
 * The payload column of a row group: pages whose values are references.
 *
 * PLAIN, UNCOMPRESSED, required, no statistics (they would hold whole payloads). A page is some
 * 64 KiB or one row, and the offset index tells where each begins, so that a row can be read alone.
 */

import type { ColumnChunk } from 'hyparquet'
import { Ring2Error } from '../errors.ts'
import { parquetLimits } from '../limits.ts'
import type { WrittenChunk } from './column-chunks.ts'
import type { GatherWriter } from './gather-writer.ts'
import { encodings, writeDataPageHeader } from './page-headers.ts'
import type { PageLocation } from './page-index.ts'

/** Sizes of a page are 32-bit in the format. */
const PAGE_BYTES_MAX = 2 ** 31 - 2 ** 16
const LENGTH_PREFIX_BYTES = 4

/** Writes the pages of one row group and returns its column chunk. */
export function writePayloadChunk(
  writer: GatherWriter,
  name: string,
  payloads: readonly Uint8Array[],
): WrittenChunk {
  const chunkStart = writer.offset
  const pages: PageLocation[] = []
  let firstRow = 0
  for (const page of splitIntoPages(payloads)) {
    const offset = writer.offset
    writePage(writer, page)
    pages.push({ offset, bytes: writer.offset - offset, firstRow })
    firstRow += page.length
  }
  const bytes = BigInt(writer.offset - chunkStart)
  const chunk: ColumnChunk = {
    meta_data: {
      type: 'BYTE_ARRAY',
      encodings: ['PLAIN', 'RLE'],
      path_in_schema: [name],
      codec: 'UNCOMPRESSED',
      num_values: BigInt(payloads.length),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(chunkStart),
    },
    file_offset: BigInt(chunkStart),
  }
  return { chunk, pages, bounds: null, bloomFilter: null }
}

function* splitIntoPages(payloads: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
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

function writePage(writer: GatherWriter, payloads: readonly Uint8Array[]): void {
  let bytes = 0
  for (const payload of payloads) bytes += payload.byteLength + LENGTH_PREFIX_BYTES
  if (bytes > PAGE_BYTES_MAX) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `one tensor of at most ${PAGE_BYTES_MAX} bytes`,
      actual: `${bytes} bytes`,
      action: 'Capture fewer tokens per step; a Parquet page cannot hold more.',
    })
  }
  writeDataPageHeader(writer, bytes, payloads.length, encodings.plain)
  for (const payload of payloads) {
    writer.appendUint32(payload.byteLength)
    writer.appendReference(payload)
  }
}
