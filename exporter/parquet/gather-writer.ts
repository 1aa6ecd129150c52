/**
 * A hyparquet-writer Writer that keeps references to large byte arrays and writes them, in order
 * with the small bytes between them, by gathered writes (writev).
 *
 * Invariants: `offset` is the number of bytes appended; `flushAll` has written them all when it
 * returns. A referenced array must not change before that. Errors of the system are thrown.
 */

import { writevSync } from 'node:fs'
import { ByteWriter } from 'hyparquet-writer'
import { parquetLimits } from '../limits.ts'

export interface GatherWriter extends ByteWriter {
  /** Appends bytes without a copy when they are large enough for that to pay. */
  appendReference(bytes: Uint8Array): void
  /** Appends bytes that may change afterwards. */
  appendCopy(bytes: Uint8Array): void
  /** Writes everything appended so far. */
  flushAll(): void
}

/** @param fd open for writing at its start; the caller closes it. */
export function createGatherWriter(fd: number): GatherWriter {
  const writer = new ByteWriter(parquetLimits.gatherChunkBytes)
  let entries: Uint8Array[] = []
  let entriesBytes = 0
  // First byte of the current chunk that no entry covers yet.
  let chunkStart = 0

  function seal(): void {
    if (writer.index === chunkStart) return
    const bytes = new Uint8Array(writer.buffer, chunkStart, writer.index - chunkStart)
    entries.push(bytes)
    entriesBytes += bytes.byteLength
    chunkStart = writer.index
  }

  function flushAll(): void {
    seal()
    writeFully(fd, entries)
    entries = []
    entriesBytes = 0
    // Every entry is in the file, so the chunk can be used again from its start.
    writer.index = 0
    chunkStart = 0
  }

  function appendReference(bytes: Uint8Array): void {
    if (bytes.byteLength <= parquetLimits.gatherCopyBytesMax) {
      appendCopy(bytes)
      return
    }
    seal()
    entries.push(bytes)
    entriesBytes += bytes.byteLength
    writer.offset += bytes.byteLength
    const full = entries.length + 2 > parquetLimits.gatherEntriesMax
    if (full || entriesBytes >= parquetLimits.gatherBytesMax) flushAll()
  }

  function appendCopy(bytes: Uint8Array): void {
    writer.ensure(bytes.byteLength)
    new Uint8Array(writer.buffer, writer.index, bytes.byteLength).set(bytes)
    writer.index += bytes.byteLength
    writer.offset += bytes.byteLength
  }

  function ensure(size: number): void {
    if (writer.index + size <= writer.buffer.byteLength) return
    seal()
    writer.buffer = new ArrayBuffer(Math.max(parquetLimits.gatherChunkBytes, size))
    writer.view = new DataView(writer.buffer)
    writer.index = 0
    chunkStart = 0
  }

  return Object.assign(writer, {
    ensure,
    // Encoded pages come as arrays of their own that are never written again.
    appendBytes: appendReference,
    appendReference,
    appendCopy,
    flushAll,
    finish: flushAll,
  })
}

/** Writes all arrays in order; a gathered write may stop anywhere, so it goes on from there. */
function writeFully(fd: number, entries: readonly Uint8Array[]): void {
  let next = 0
  while (next < entries.length) {
    const batch = entries.slice(next, next + parquetLimits.gatherEntriesMax)
    let written = writevSync(fd, batch)
    let index = 0
    while (index < batch.length && written >= (batch[index]?.byteLength ?? 0)) {
      written -= batch[index]?.byteLength ?? 0
      index += 1
    }
    const cut = batch[index]
    if (cut !== undefined) {
      writeRest(fd, cut, written)
      index += 1
    }
    next += index
  }
}

function writeRest(fd: number, bytes: Uint8Array, start: number): void {
  let position = start
  while (position < bytes.byteLength) {
    position += writevSync(fd, [bytes.subarray(position)])
  }
}
