/**
 * One server process: started, found healthy, stopped, killed, started again, with its output appended
 * to a log file. In a process group of its own, and yet it ends with this process.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText, Ring2Error } from '../../errors.ts'
import { endWithThisProcess } from '../process-groups.ts'
import type { ServerCommand, ServerName } from './commands.ts'
import { stackLimits } from './limits.ts'

export interface StackServer {
  readonly name: ServerName
  /** File with the output of all its starts. */
  readonly log: string
  /** Process id while it runs, else undefined. */
  pid(): number | undefined
  /** Starts it and waits until it is healthy; nothing when it runs. */
  start(): Promise<void>
  /** SIGTERM, and waits for its end; nothing when it does not run. */
  stop(): Promise<void>
  /** SIGKILL, as a crash: what is only in its memory is gone. */
  kill(): Promise<void>
  /** Stops it when it runs, and starts it on the same ports and data. */
  restart(): Promise<void>
}

export function createServerProcess(command: ServerCommand, log: string): StackServer {
  let child: ChildProcess | undefined
  const alive = (): ChildProcess | undefined =>
    child?.exitCode === null && child.signalCode === null ? child : undefined
  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    const current = alive()
    if (current === undefined) return
    const exited = once(current, 'exit')
    current.kill(signal)
    const late = sleep(stackLimits.stopMillis, 'late', { ref: false })
    if ((await Promise.race([exited, late])) !== 'late') return
    current.kill('SIGKILL')
    await exited
  }
  const server: StackServer = {
    name: command.name,
    log,
    pid: () => alive()?.pid,
    async start() {
      if (alive() !== undefined) return
      const started = await launchServer(command, log)
      endWithThisProcess(started, 'KILL')
      child = started
      try {
        await untilHealthy(command, started, log)
      } catch (error) {
        await end('SIGKILL')
        throw error
      }
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    async restart() {
      await end('SIGTERM')
      await server.start()
    },
  }
  return server
}

/** Starts the program and nothing more; it outlives this process. */
export async function launchServer(command: ServerCommand, log: string): Promise<ChildProcess> {
  const output = openSync(log, 'a')
  const child = spawn(command.program, command.arguments, {
    cwd: command.workingDirectory,
    env: { ...process.env, ...command.environment },
    stdio: ['ignore', output, output],
    // In a group of its own, which Ctrl-C in a terminal does not reach.
    detached: true,
  })
  closeSync(output)
  try {
    await once(child, 'spawn')
  } catch (error) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: `to run ${command.program}`,
      actual: errorText(error),
      action: 'Build the servers with `npm run stack -- build`, or set RING2_STACK_DIR.',
    })
  }
  return child
}

type Probed = Pick<ServerCommand, 'name' | 'healthUrl'>

/** Whether a server answers that it is ready. */
export async function isHealthy(command: Probed): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(stackLimits.probeMillis)
    const response = await fetch(command.healthUrl, { signal })
    await response.arrayBuffer()
    return response.ok
  } catch {
    // Refused and late both mean: not yet.
    return false
  }
}

/** @throws Ring2Error with the end of its log when it ends, or is not healthy in time. */
export async function untilHealthy(
  command: Probed,
  child: ChildProcess,
  log: string,
): Promise<void> {
  const until = performance.now() + stackLimits.healthyMillis
  while (performance.now() < until) {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw notStarted(command, `it ended with ${child.exitCode ?? child.signalCode}`, log)
    }
    // Another server on the same port would answer as well; then this one ends at once.
    if (await isHealthy(command)) return
    await sleep(stackLimits.pollMillis)
  }
  throw notStarted(command, `not healthy after ${stackLimits.healthyMillis / 1000} s`, log)
}

function notStarted(command: Probed, actual: string, log: string): Ring2Error {
  const tail = readFileSync(log, 'utf8').trim().split('\n').slice(-stackLimits.logTailLines)
  return new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `${command.name} to start and answer at ${command.healthUrl}`,
    actual: `${actual}; its last lines:\n${tail.join('\n')}`,
    action: `Read ${log}.`,
  })
}
