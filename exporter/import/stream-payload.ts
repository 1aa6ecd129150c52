/**
 * Payloads of STRAP-LLM packets: which compression a capture has, and what a packet holds.
 *
 * The format does not say it: a zstd or LZ4 frame is known by its mark, anything else is taken for
 * elements as they are. Nothing larger than the bound is ever made.
 */

import { constants, zstdDecompressSync } from 'node:zlib'
import { lz4Decode } from '../../collector/index.ts'
import { importLimits } from '../limits.ts'

export const streamCodecs = ['none', 'lz4', 'zstd'] as const
export type StreamCodec = (typeof streamCodecs)[number]

const marks: readonly (readonly [StreamCodec, readonly number[]])[] = [
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['lz4', [0x04, 0x22, 0x4d, 0x18]],
]

export function codecOf(data: Uint8Array): StreamCodec {
  return marks.find(([, mark]) => mark.every((byte, index) => data[index] === byte))?.[0] ?? 'none'
}

/** Null for a payload that is damaged, or that would be larger than the bound. */
export function unpack(
  codec: StreamCodec,
  data: Uint8Array,
  bytesMax: number = importLimits.packetBytesMax,
): Uint8Array | null {
  if (codec === 'none') return data
  try {
    if (codec === 'lz4') return lz4Decode(data, bytesMax)
    return zstdDecompressSync(data, {
      params: { [constants.ZSTD_d_windowLogMax]: importLimits.zstdWindowLogMax },
      maxOutputLength: bytesMax,
    })
  } catch {
    // Why does not matter to the caller: the packet is counted as damaged and passed over.
    return null
  }
}
