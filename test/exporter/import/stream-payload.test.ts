/** What a packet may become: bounds of what is unpacked. Whole captures: import-stream.test.ts. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { codecOf, unpack } from '../../../exporter/import/stream-payload.ts'
import { runPython } from '../tensors/python.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

test('a zstd frame becomes what the bound allows, and not a byte more', () => {
  const frame = zstdCompressSync(new Uint8Array(100_000))
  expect(codecOf(frame)).toBe('zstd')
  expect(unpack('zstd', frame, 100_000)).toHaveLength(100_000)
  expect(unpack('zstd', frame, 99_999)).toBeNull()
})

test('so does an LZ4 frame', () => {
  const folder = temporaryFolder()
  runPython(join(import.meta.dirname, 'write_stream.py'), [folder, 'lz4'])
  const capture = readFileSync(join(folder, 'capture.stream'))
  // The first packet, whose module has no name: five tokens of 24 values.
  const packet = capture.subarray(6, 6 + capture.readUInt32BE(2))
  expect(codecOf(packet)).toBe('lz4')
  expect(unpack('lz4', packet, 240)).toHaveLength(240)
  expect(unpack('lz4', packet, 239)).toBeNull()
})
