import { expect, test } from 'vitest'
import { crc32c } from './crc32c.ts'

test('the checksum of the test vectors of RFC 3720 is theirs', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283)
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa)
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43)
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, index) => index))).toBe(0x46dd794e)
})

test('the checksum of nothing is zero', () => {
  expect(crc32c(new Uint8Array(0))).toBe(0)
})

test('a view in the middle of a buffer has the checksum of its own bytes', () => {
  const bytes = new TextEncoder().encode('__123456789__')
  expect(crc32c(bytes.subarray(2, 11))).toBe(0xe3069283)
})
