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
import type { RowRange, RowSource } from './row-source.ts'

/** Sizes of a page are 32-bit in the format. */
const PAGE_BYTES_MAX = 2 ** 31 - 2 ** 16
const LENGTH_PREFIX_BYTES = 4

/** Writes the pages of one row group and returns its column chunk. */
export function writePayloadChunk(
  writer: GatherWriter,
  name: string,
  source: RowSource,
  rows: RowRange,
): WrittenChunk {
  const chunkStart = writer.offset
  const pages: PageLocation[] = []
  for (const page of splitIntoPages(source, rows)) {
    const offset = writer.offset
    writePage(writer, source, page)
    pages.push({ offset, bytes: writer.offset - offset, firstRow: page.start - rows.start })
  }
  const bytes = BigInt(writer.offset - chunkStart)
  const chunk: ColumnChunk = {
    meta_data: {
      type: 'BYTE_ARRAY',
      encodings: ['PLAIN', 'RLE'],
      path_in_schema: [name],
      codec: 'UNCOMPRESSED',
      num_values: BigInt(rows.end - rows.start),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(chunkStart),
    },
    file_offset: BigInt(chunkStart),
  }
  return { chunk, pages, bounds: null, bloomFilter: null }
}

interface Page extends RowRange {
  /** With the length before each value. */
  readonly bytes: number
}

function* splitIntoPages(source: RowSource, rows: RowRange): Generator<Page> {
  let { start } = rows
  let bytes = 0
  for (let end = rows.start; end < rows.end; end += 1) {
    const size = source.payloadBytes(end) + LENGTH_PREFIX_BYTES
    if (end > start && bytes + size > parquetLimits.dataPageBytes) {
      yield { start, end, bytes }
      start = end
      bytes = 0
    }
    bytes += size
  }
  if (start < rows.end) yield { start, end: rows.end, bytes }
}

function writePage(writer: GatherWriter, source: RowSource, { start, end, bytes }: Page): void {
  if (bytes > PAGE_BYTES_MAX) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `one tensor of at most ${PAGE_BYTES_MAX} bytes`,
      actual: `${bytes} bytes`,
      action: 'Capture fewer tokens per step; a Parquet page cannot hold more.',
    })
  }
  writeDataPageHeader(writer, bytes, end - start, encodings.plain)
  for (let row = start; row < end; row += 1) {
    const payload = source.payload(row)
    writer.appendUint32(payload.byteLength)
    writer.appendReference(payload)
  }
}
