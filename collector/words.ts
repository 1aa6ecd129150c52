/**
 * Reads C integers from a buffer. 64-bit words become numbers here, and only here.
 *
 * What native code has checked (positions, counts of slices) is always exact. Counters, keys and step
 * numbers come from the producer unchecked: beyond ±(2^53 − 1) they are clamped, so that a hostile
 * word shows as an absurd number and stops nothing.
 */

const HIGH = 2 ** 32

export interface Words {
  readonly bytes: Uint8Array
  u16(offset: number): number
  u32(offset: number): number
  i32(offset: number): number
  /** Clamped to 2^53 − 1. */
  u64(offset: number): number
  /** Clamped to ±(2^53 − 1). */
  i64(offset: number): number
  f64(offset: number): number
  /** Nanoseconds since the epoch as microseconds, to 1 µs. */
  micros(offset: number): number
  setU32(offset: number, value: number): void
  setU64(offset: number, value: number): void
}

function clamp(value: number): number {
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(value, Number.MAX_SAFE_INTEGER))
}

export function words(bytes: Uint8Array): Words {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u64 = (offset: number): number => {
    const low = view.getUint32(offset, true)
    const high = view.getUint32(offset + 4, true)
    return high === 0 ? low : clamp(high * HIGH + low)
  }
  return {
    bytes,
    u16: (offset) => view.getUint16(offset, true),
    u32: (offset) => view.getUint32(offset, true),
    i32: (offset) => view.getInt32(offset, true),
    u64,
    i64: (offset) => clamp(view.getInt32(offset + 4, true) * HIGH + view.getUint32(offset, true)),
    f64: (offset) => view.getFloat64(offset, true),
    micros: (offset) => Number(view.getBigUint64(offset, true) / 1000n),
    setU32: (offset, value) => view.setUint32(offset, value, true),
    setU64: (offset, value) => {
      view.setUint32(offset, value % HIGH, true)
      view.setUint32(offset + 4, Math.floor(value / HIGH), true)
    },
  }
}
