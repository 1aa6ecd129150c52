/** Checksums of many payloads: the same as one by one, and beside the event loop. */
import { expect, test } from 'vitest'
import { checksums } from '../../collector/checksums.ts'
import { crc32c } from '../exporter/tensors/crc32c.ts'

const MIB = 2 ** 20

test('parts of several buffers have the checksums that they have one by one, in their order', async () => {
  const first = Uint8Array.from({ length: 1000 }, (_, index) => (index * 31) % 251)
  const second = Uint8Array.from({ length: 77 }, (_, index) => index)
  const parts = [
    first.subarray(3, 700),
    second,
    first.subarray(0, 0),
    first.subarray(1, 1000),
    second.subarray(70),
  ]
  expect([...(await checksums(parts))]).toEqual(parts.map((part) => crc32c(part)))
  expect([...(await checksums([]))]).toEqual([])
})

test('the event loop goes on while a large payload is summed', async () => {
  let ticks = 0
  let done = false
  const tick = () => {
    if (done) return
    ticks += 1
    setImmediate(tick)
  }
  setImmediate(tick)
  await checksums([new Uint8Array(256 * MIB)])
  done = true
  // Summed on this thread, it would be none.
  expect(ticks).toBeGreaterThan(0)
})
