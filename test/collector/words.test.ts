import { expect, test } from 'vitest'
import { words } from '../../collector/words.ts'

function buffer(write: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(32)
  write(new DataView(bytes.buffer, 8))
  return bytes.subarray(8)
}

test.each([
  [0n, 0],
  [1n, 1],
  [0xffff_ffffn, 0xffff_ffff],
  [0x1_0000_0000n, 0x1_0000_0000],
  [2n ** 53n - 1n, Number.MAX_SAFE_INTEGER],
])('an unsigned word of %s is read exactly, at any offset of its buffer', (value, expected) => {
  expect(words(buffer((view) => view.setBigUint64(0, value, true))).u64(0)).toBe(expected)
})

test.each([
  [-1n, -1],
  [-(2n ** 40n) - 7n, -(2 ** 40) - 7],
  [2n ** 52n, 2 ** 52],
])('a signed word of %s is read exactly', (value, expected) => {
  expect(words(buffer((view) => view.setBigInt64(0, value, true))).i64(0)).toBe(expected)
})

test('a word that no number holds is clamped instead of stopping the drain', () => {
  const all = words(new Uint8Array(8).fill(0xff))
  expect(all.u64(0)).toBe(Number.MAX_SAFE_INTEGER)
  const lowest = words(buffer((view) => view.setBigInt64(0, -(2n ** 63n), true)))
  expect(lowest.i64(0)).toBe(Number.MIN_SAFE_INTEGER)
})

test('nanoseconds become microseconds without losing one', () => {
  const nanoseconds = 1_772_600_767_123_456_999n
  const source = words(buffer((view) => view.setBigUint64(0, nanoseconds, true)))
  expect(source.micros(0)).toBe(1_772_600_767_123_456)
})

test('what is written is read again', () => {
  const all = words(new Uint8Array(12))
  all.setU64(4, 2 ** 50 + 3)
  all.setU32(0, 0xdead_beef)
  expect(all.u64(4)).toBe(2 ** 50 + 3)
  expect(all.u32(0)).toBe(0xdead_beef)
})
