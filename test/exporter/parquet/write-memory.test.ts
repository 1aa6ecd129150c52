/** Memory of the writer does not grow with the payloads: they go from the ring to the file. */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const MIB = 1024 * 1024

test.each([
  { tensorBytes: 16 * MIB, rounds: 14, rows: 64 },
  { tensorBytes: 64 * MIB, rounds: 4, rows: 6 },
])('writing tensors of $tensorBytes bytes takes less memory than one of them', (one) => {
  const segments = mkdtempSync('/dev/shm/ring2-memory-')
  onTestFinished(() => rmSync(segments, { recursive: true, force: true }))
  const child = join(import.meta.dirname, 'write-memory.child.ts')
  const facts = [temporaryFolder(), segments, String(one.tensorBytes), String(one.rounds)]
  const done = spawnSync(process.execPath, [child, ...facts], { encoding: 'utf8' })
  expect(done.stderr).toBe('')
  const { rows, grown } = JSON.parse(done.stdout)
  expect(rows).toBe(one.rows)
  expect(grown).toBeLessThan(8 * MIB)
})
