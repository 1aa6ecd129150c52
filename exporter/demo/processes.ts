/**
 * The demo's processes: each with its log in a file, each in a process group of its own, each ended in
 * order. None is part of the exporter; they are what a user would run beside it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Ring2Error } from '../errors.ts'
import { demoLimits } from './limits.ts'
import { endWithThisProcess } from './process-groups.ts'

export interface DemoProcess {
  readonly name: string
  readonly pid: number
  /** File with its output. */
  readonly log: string
  /** Asks it to end and waits; its exit code, or null when it had to be killed. */
  stop(): Promise<number | null>
}

export interface ProcessOptions {
  readonly name: string
  readonly program: string
  readonly arguments: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly logs: string
  /** Which output announces that it is ready, and what a line says of it; undefined: not yet. */
  readonly readyOn: 'stdout' | 'stderr'
  ready(line: string): string | undefined
  /** `SIGTERM`, or by closing its standard input. */
  readonly endBy: 'SIGTERM' | 'stdin'
}

/** Starts a process and waits until it says that it is ready; gives what it said. */
export async function startProcess(
  options: ProcessOptions,
): Promise<{ process: DemoProcess; ready: string }> {
  const child = spawn(options.program, options.arguments, {
    env: { ...process.env, ...options.environment },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  endWithThisProcess(child, 'TERM')
  const logPath = join(options.logs, `${options.name}.log`)
  const log = createWriteStream(logPath)
  child.stdout.pipe(log, { end: false })
  child.stderr.pipe(log, { end: false })
  const exited = once(child, 'exit')
  const ready = await Promise.race([
    firstAnswer(child, options),
    exited.then(([code]) => Promise.reject(ended(options.name, `exit code ${code}`, logPath))),
    timeout(demoLimits.startMillis).then(() =>
      Promise.reject(ended(options.name, `nothing in ${demoLimits.startMillis / 1000} s`, logPath)),
    ),
  ]).catch((error: unknown) => {
    // It may go on, and nobody else knows of it.
    killGroup(child)
    throw error
  })
  return {
    ready,
    process: {
      name: options.name,
      pid: child.pid ?? 0,
      log: logPath,
      async stop() {
        if (child.exitCode !== null) return child.exitCode
        if (options.endBy === 'stdin') child.stdin.end()
        else child.kill('SIGTERM')
        const code = await Promise.race([
          exited.then(() => child.exitCode),
          timeout(demoLimits.stopMillis).then(() => 'late' as const),
        ])
        if (code !== 'late') return code
        killGroup(child)
        return null
      },
    },
  }
}

async function firstAnswer(child: ChildProcess, options: ProcessOptions): Promise<string> {
  const stream = options.readyOn === 'stdout' ? child.stdout : child.stderr
  if (stream === null) throw new Error('the process has no output')
  return new Promise((resolve) => {
    createInterface({ input: stream }).on('line', (line) => {
      const answer = options.ready(line)
      if (answer !== undefined) resolve(answer)
    })
  })
}

function ended(name: string, actual: string, logPath: string): Ring2Error {
  const tail = readFileSync(logPath, 'utf8').trim().split('\n').slice(-demoLimits.logTailLines)
  return new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `the ${name} to start`,
    actual: `${actual}; its last lines:\n${tail.join('\n')}`,
    action: `Read ${logPath}.`,
  })
}

function timeout(millis: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, millis).unref()
  })
}

/** With the processes that it has started: a server's workers would stay behind. */
function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
