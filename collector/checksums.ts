/**
 * CRC-32C (Castagnoli, RFC 3720) of many payloads at once, on a thread of its own: the event loop
 * goes on while they are read.
 */
import { nativeTask } from './native.ts'

const OFFSET_AND_SIZE = 2

let task: ReturnType<typeof nativeTask> | null = null

/**
 * @param parts must not change until the promise settles. Parts of one buffer cost one call.
 * @returns a sum for each, unsigned, in their order.
 */
export async function checksums(parts: readonly Uint8Array[]): Promise<Uint32Array> {
  task ??= nativeTask(
    'int ring2_crc32c_parts(const void *data, uint64_t data_bytes, const uint64_t *parts, ' +
      'uint64_t count, uint32_t *sums)',
  )
  const run = task
  const sums = new Uint32Array(parts.length)
  const indexes = Map.groupBy(parts.keys(), (index) => parts[index]?.buffer ?? null)
  await Promise.all(
    [...indexes].map(async ([buffer, ofBuffer]) => {
      if (buffer === null) return
      const places = new BigUint64Array(ofBuffer.length * OFFSET_AND_SIZE)
      for (const [at, index] of ofBuffer.entries()) {
        places[at * OFFSET_AND_SIZE] = BigInt(parts[index]?.byteOffset ?? 0)
        places[at * OFFSET_AND_SIZE + 1] = BigInt(parts[index]?.byteLength ?? 0)
      }
      const found = new Uint32Array(ofBuffer.length)
      await run(new Uint8Array(buffer), buffer.byteLength, places, ofBuffer.length, found)
      for (const [at, index] of ofBuffer.entries()) sums[index] = found[at] ?? 0
    }),
  )
  return sums
}
