/**
 * Child processes in groups of their own: Ctrl-C in a terminal reaches the demo alone, and it ends the
 * others in their order. So nobody but the demo would end them; a guardian does when it dies.
 */
import { type ChildProcess, spawn } from 'node:child_process'

/** Reads until its input closes, which happens however this process dies, and then ends the group. */
const guardianScript = 'read -r _; kill -s "$1" -- "-$0"'

/**
 * Ends a detached child's process group when this process ends first, even by SIGKILL.
 *
 * @param child started with `detached`, so its process id is its group's id.
 */
export function endWithThisProcess(child: ChildProcess, signal: 'TERM' | 'KILL'): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const guardian = spawn('/bin/sh', ['-c', guardianScript, `${child.pid}`, signal], {
    env: {},
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  // Neither it nor its input keeps this process alive.
  guardian.unref()
  if ('unref' in guardian.stdin && typeof guardian.stdin.unref === 'function') {
    guardian.stdin.unref()
  }
  // The number may be another process's after that.
  child.once('exit', () => guardian.kill('SIGKILL'))
}
