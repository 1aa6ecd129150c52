/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78, RFC 3720 §12.1), slicing by eight.
 *
 * A second implementation, to compare the stored checksums with; the exporter uses the native one.
 */

const POLYNOMIAL = 0x82f63b78
const tables = makeTables()

/** Checksum of the bytes, as an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables
  let crc = -1
  let index = 0
  for (; index + 8 <= bytes.byteLength; index += 8) {
    const low = crc ^ view.getInt32(index, true)
    const high = view.getInt32(index + 4, true)
    crc =
      at(t7, low) ^
      at(t6, low >>> 8) ^
      at(t5, low >>> 16) ^
      at(t4, low >>> 24) ^
      at(t3, high) ^
      at(t2, high >>> 8) ^
      at(t1, high >>> 16) ^
      at(t0, high >>> 24)
  }
  for (; index < bytes.byteLength; index += 1) {
    crc = (crc >>> 8) ^ at(t0, crc ^ view.getUint8(index))
  }
  return (crc ^ -1) >>> 0
}

function at(table: Int32Array, index: number): number {
  return table[index & 0xff] ?? 0
}

type Tables = readonly [
  ...[Int32Array, Int32Array, Int32Array, Int32Array],
  ...[Int32Array, Int32Array, Int32Array, Int32Array],
]

function makeTables(): Tables {
  const first = new Int32Array(256)
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0)
    first[byte] = crc
  }
  const next = (table: Int32Array) => table.map((crc) => (crc >>> 8) ^ at(first, crc))
  const t1 = next(first)
  const t2 = next(t1)
  const t3 = next(t2)
  const t4 = next(t3)
  const t5 = next(t4)
  const t6 = next(t5)
  return [first, t1, t2, t3, t4, t5, t6, next(t6)]
}
