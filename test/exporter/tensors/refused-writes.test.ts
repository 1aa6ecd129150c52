/**
 * Stores that refuse writes for real: a full disk, a read-only directory. Each runs in a child
 * process, whose limits and rights can be changed.
 */

import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { temporaryFolder } from './temporary-folder.ts'

const child = join(import.meta.dirname, 'refused-writes.child.ts')

interface Report {
  readonly first: { status: string; message: string; code: string; action: string }
  readonly pending: { rows: number; bytes: number; summaries: number }
}

function runChild(command: readonly string[]): Report {
  const [file = '', ...rest] = command
  const done = spawnSync(file, rest, { encoding: 'utf8' })
  expect(done.stderr).toBe('')
  expect(done.status).toBe(0)
  return JSON.parse(done.stdout)
}

/** Mounts a small file system on the folder; false where this process may not mount. */
function mountSmall(folder: string): boolean {
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder])
  if (mounted.status !== 0) return false
  onTestFinished(() => {
    spawnSync('umount', [folder])
  })
  return true
}

function filesBelow(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name)
}

test('a full disk keeps the rows, leaves no partial file, and says what to do', () => {
  const root = temporaryFolder()
  // Where nothing can be mounted, a limit of the file size stops the write at the same place.
  const limited = ['bash', '-c', 'trap "" XFSZ; ulimit -f 512; exec "$0" "$@"']
  const command = [process.execPath, child, root]
  const mounted = mountSmall(root)
  const report = runChild(mounted ? command : [...limited, ...command])
  expect(report.first).toMatchObject({ status: 'retryable', code: 'RING2_E_STORE' })
  expect(report.first.message).toContain(mounted ? 'ENOSPC' : 'EFBIG')
  expect(report.first.message).toContain(root)
  expect(report.first.action).toMatch(mounted ? /Free space/ : /ulimit -f/)
  expect(report.pending).toEqual({ rows: 1, bytes: 2 * 1024 * 1024, summaries: 0 })
  expect(filesBelow(root)).toEqual([])
})

test('a limit of the file size keeps the rows too', () => {
  const root = temporaryFolder()
  const limited = ['bash', '-c', 'trap "" XFSZ; ulimit -f 512; exec "$0" "$@"']
  const report = runChild([...limited, process.execPath, child, root])
  expect(report.first).toMatchObject({ status: 'retryable', code: 'RING2_E_STORE' })
  expect(report.first.message).toContain('EFBIG')
  expect(report.pending.rows).toBe(1)
  expect(filesBelow(root)).toEqual([])
})

test('a read-only directory keeps the rows and names the path and the errno', () => {
  const parent = temporaryFolder()
  chmodSync(parent, 0o755)
  const root = join(parent, 'store')
  mkdirSync(root)
  chmodSync(root, 0o555)
  const report = runChild([process.execPath, child, root, '--unprivileged'])
  expect(report.first).toMatchObject({ status: 'retryable', code: 'RING2_E_STORE' })
  expect(report.first.message).toContain('EACCES')
  expect(report.first.message).toContain(root)
  expect(report.first.action).toContain('write permission')
  expect(report.pending.rows).toBe(1)
})
