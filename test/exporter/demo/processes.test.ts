/** Processes of the demo that do not start: nothing of them is left running. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { startProcess } from '../../../exporter/demo/processes.ts'

/** A zombie that nobody has waited for yet does not run. */
function runs(pid: string): boolean {
  const path = `/proc/${pid}/stat`
  return existsSync(path) && !/\) Z /.test(readFileSync(path, 'latin1'))
}

test('What a process has started ends with it when it does not start', async () => {
  const logs = mkdtempSync(join(tmpdir(), 'ring2-demo-processes-'))
  const file = join(logs, 'pid')
  const started = startProcess({
    name: 'server',
    program: '/bin/sh',
    arguments: ['-c', `sleep 300 & echo $! > ${file}; exit 3`],
    environment: {},
    logs,
    readyOn: 'stdout',
    ready: () => undefined,
    endBy: 'SIGTERM',
  })
  await expect(started).rejects.toThrow()
  const pid = readFileSync(file, 'utf8').trim()
  expect(pid).toMatch(/^\d+$/)
  await vi.waitFor(() => expect(runs(pid)).toBe(false))
  rmSync(logs, { recursive: true })
})
