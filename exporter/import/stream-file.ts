/**
 * Reads the packets of a STRAP-LLM `.stream` capture, in order, and says how the file ends.
 *
 * A packet is `!HI` (length of the name, length of the payload, big-endian), the name in UTF-8 and the
 * payload; packets lie back to back, without mark, version or checksum (STRAP-LLM,
 * docs/STREAM_FORMAT.md). So the first packet that does not fit ends what can be read: everything
 * after it is the torn tail. Lengths are compared with the file before anything of that size is read.
 * Not here: compression (stream-payload.ts), what the packets mean (stream-rows.ts).
 */

import { fstatSync, readSync } from 'node:fs'
import { errorText, Ring2Error, systemCode } from '../errors.ts'
import { importLimits } from '../limits.ts'

const HEADER_BYTES = 6

export interface StreamPacket {
  readonly name: string
  /** As stored. */
  readonly data: Uint8Array
}

/** How a file ends; sizes are in bytes. */
export interface StreamEnd {
  readonly bytes: number
  /** From the first packet that is cut, or is no packet, to the end. */
  readonly tornBytes: number
  /** NUL from the last packet to the end, left by writers that map the file and die. */
  readonly paddingBytes: number
}

/**
 * Calls `each` with every whole packet. Throws what the system throws.
 *
 * @throws Ring2Error RING2_E_IMPORT for a whole packet that is larger than is taken.
 */
export function readStream(fd: number, each: (packet: StreamPacket) => void): StreamEnd {
  const bytes = fstatSync(fd).size
  for (let at = 0; at < bytes; ) {
    const packet = readPacket(fd, at, bytes)
    if (packet === null) {
      const left = bytes - at
      // Less than a header of NUL may as well be the beginning of a packet without a name.
      const padding = left >= HEADER_BYTES && isNul(fd, at, bytes)
      return { bytes, tornBytes: padding ? 0 : left, paddingBytes: padding ? left : 0 }
    }
    each(packet)
    at += packet.bytes
  }
  return { bytes, tornBytes: 0, paddingBytes: 0 }
}

/** Null where no whole packet begins at `at`. */
function readPacket(
  fd: number,
  at: number,
  end: number,
): (StreamPacket & { readonly bytes: number }) | null {
  if (end - at < HEADER_BYTES) return null
  const header = readAt(fd, at, HEADER_BYTES)
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
  const nameBytes = view.getUint16(0)
  const dataBytes = view.getUint32(2)
  const bytes = HEADER_BYTES + nameBytes + dataBytes
  // A tensor without elements is never captured: six NUL are padding, not a packet.
  if (dataBytes === 0 || nameBytes > importLimits.nameBytesMax || bytes > end - at) return null
  if (dataBytes > importLimits.packetBytesMax) {
    const name = textOf(readAt(fd, at + HEADER_BYTES, nameBytes))
    if (name === null) return null
    throw tooLarge(name, dataBytes, at)
  }
  const body = readAt(fd, at + HEADER_BYTES, nameBytes + dataBytes)
  const name = textOf(body.subarray(0, nameBytes))
  return name === null ? null : { name, data: body.subarray(nameBytes), bytes }
}

function tooLarge(name: string, bytes: number, at: number): Ring2Error {
  return new Ring2Error('RING2_E_IMPORT', {
    expected: `packets of at most ${importLimits.packetBytesMax} bytes`,
    actual: `${bytes} bytes of ${JSON.stringify(name)} in the packet at byte ${at}`,
    action: 'Capture fewer tokens at once, or in a smaller element type: a packet is one tensor.',
  })
}

/** The error for a file that was named and cannot be opened or read. */
export function unreadable(what: string, path: string, cause: unknown): Ring2Error {
  const errno = systemCode(cause)
  return new Ring2Error('RING2_E_IMPORT', {
    expected: `to read ${what} ${path}`,
    actual: errno === null ? errorText(cause) : `${errno} (${errorText(cause)})`,
    action: 'Name a file that is there and may be read.',
    cause,
  })
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function textOf(bytes: Uint8Array): string | null {
  try {
    return utf8.decode(bytes)
  } catch {
    return null
  }
}

function isNul(fd: number, from: number, end: number): boolean {
  for (let at = from; at < end; at += importLimits.chunkBytes) {
    const chunk = readAt(fd, at, Math.min(importLimits.chunkBytes, end - at))
    if (chunk.some((byte) => byte !== 0)) return false
  }
  return true
}

function readAt(fd: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let read = 0; read < length; ) {
    const count = readSync(fd, bytes, read, length - read, position + read)
    if (count === 0) throw new Error('the file became shorter while it was read')
    read += count
  }
  return bytes
}
