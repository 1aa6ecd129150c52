/**
 * The hybrid of run-length encoding and bit packing that levels and dictionary codes are written
 * in, for values of one byte.
 *
 * Source: https://parquet.apache.org/docs/file-format/data-pages/encodings/ (RLE)
 */

import type { Writer } from 'hyparquet-writer'

/** Runs of equal values among [start, end). */
export function appendRuns(writer: Writer, values: Uint8Array, start: number, end: number): void {
  let runStart = start
  while (runStart < end) {
    const value = values[runStart] as number
    let index = runStart + 1
    while (index < end && values[index] === value) index += 1
    writer.appendVarInt((index - runStart) * 2)
    writer.appendUint8(value)
    runStart = index
  }
}

const GROUP = 8

/** Values of one bit, eight to a byte. */
export function appendBits(writer: Writer, values: Uint8Array): void {
  const groups = Math.ceil(values.length / GROUP)
  writer.appendVarInt(groups * 2 + 1)
  for (let group = 0; group < groups; group += 1) {
    let byte = 0
    for (let bit = 0; bit < GROUP; bit += 1) byte |= (values[group * GROUP + bit] ?? 0) << bit
    writer.appendUint8(byte)
  }
}
