/**
 * The real servers on their documented loopback ports, as processes that outlive the command: start,
 * status, stop. What was started is in `stack.json` in the state folder; a process is known again
 * by its id and its start time, so that no other process is ever ended.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ServerName, serverCommand, serverNames } from '../exporter/demo/stack/commands.ts'
import { stackLimits } from '../exporter/demo/stack/limits.ts'
import { documentedPorts, isFree, type StackPorts } from '../exporter/demo/stack/ports.ts'
import { isHealthy, launchServer, untilHealthy } from '../exporter/demo/stack/process.ts'
import { Ring2Error } from '../exporter/errors.ts'

interface Started {
  readonly name: ServerName
  readonly pid: number
  /** Clock ticks after boot, from /proc: two processes of one id never share it. */
  readonly startTime: string
  readonly healthUrl: string
  readonly log: string
}

export interface ServerStatus extends Started {
  readonly running: boolean
  readonly healthy: boolean
}

export interface StartOptions {
  readonly binaries: string
  readonly folder: string
  readonly collectorConfig?: string
  readonly webhookUrl?: string
  /** The documented ones when left out. */
  readonly ports?: StackPorts
}

const portsOf: Readonly<Record<ServerName, readonly (keyof StackPorts)[]>> = {
  jaeger: ['jaegerQuery', 'jaegerQueryGrpc', 'jaegerOtlpGrpc', 'jaegerOtlpHttp', 'jaegerHealth'],
  alertmanager: ['alertmanager'],
  prometheus: ['prometheus'],
  collector: ['otlpGrpc', 'otlpHttp', 'collectorHealth', 'collectorMetrics'],
}

function stateFile(folder: string): string {
  return join(folder, 'stack.json')
}

function readState(folder: string): Started[] {
  if (!existsSync(stateFile(folder))) return []
  return JSON.parse(readFileSync(stateFile(folder), 'utf8')) as Started[]
}

function writeState(folder: string, started: readonly Started[]): void {
  writeFileSync(stateFile(folder), `${JSON.stringify(started, null, 2)}\n`)
}

/** Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so count from its end. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? null : (fields[19] ?? null)
  } catch {
    // No such process.
    return null
  }
}

const isRunning = (one: Started): boolean => startTime(one.pid) === one.startTime

/**
 * Starts what does not run yet and waits until all are healthy.
 *
 * @throws Ring2Error when the Collector's configuration is no file, a port is taken or a server does not
 * start. Those that this call started are ended then; those that ran before stay.
 */
export async function startServers(options: StartOptions): Promise<ServerStatus[]> {
  refuseMissingFile(options.collectorConfig)
  const folder = resolve(options.folder)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const started = readState(folder).filter(isRunning)
  const missing = serverNames.filter((name) => !started.some((one) => one.name === name))
  const ports = options.ports ?? documentedPorts
  for (const name of missing) await refuseTakenPorts(name, ports)
  const before = started.length
  try {
    for (const name of missing) {
      const command = serverCommand(name, { ...options, folder, ports })
      const log = join(folder, `${name}.log`)
      const child = await launchServer(command, log)
      const pid = child.pid ?? 0
      started.push({
        ...{ name, pid, log, healthUrl: command.healthUrl },
        startTime: startTime(pid) ?? '',
      })
      writeState(folder, started)
      await untilHealthy(command, child, log)
      child.unref()
    }
  } catch (error) {
    for (const one of started.splice(before).reverse()) await end(one)
    writeState(folder, started)
    throw error
  }
  return serverStatus(folder)
}

function refuseMissingFile(path: string | undefined): void {
  if (path === undefined || statSync(path, { throwIfNoEntry: false })?.isFile() === true) return
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `--collector ${path} to be a Collector configuration`,
    actual: existsSync(path) ? 'it is no file' : 'there is no such file',
    action: 'Name a file, such as otel-config/collector/production.yaml, or leave the flag out.',
  })
}

async function end(one: Started): Promise<void> {
  if (!isRunning(one)) return
  process.kill(one.pid, 'SIGTERM')
  const until = performance.now() + stackLimits.stopMillis
  while (isRunning(one) && performance.now() < until) await sleep(stackLimits.pollMillis)
  if (isRunning(one)) process.kill(one.pid, 'SIGKILL')
}

async function refuseTakenPorts(name: ServerName, ports: StackPorts): Promise<void> {
  for (const key of portsOf[name]) {
    if (await isFree(ports[key])) continue
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: `port ${ports[key]} on 127.0.0.1 to be free, for the ${name}`,
      actual: 'another process listens there',
      action: 'End it, or run the servers by hand on other ports: see otel-config/README.md.',
    })
  }
}

export async function serverStatus(folder: string): Promise<ServerStatus[]> {
  return Promise.all(
    readState(resolve(folder)).map(async (one) => {
      const running = isRunning(one)
      return { ...one, running, healthy: running && (await isHealthy(one)) }
    }),
  )
}

/** Ends what runs, the Collector first so that it can still deliver; the names of what was ended. */
export async function stopServers(folder: string): Promise<ServerName[]> {
  const running = readState(resolve(folder)).filter(isRunning).reverse()
  for (const one of running) await end(one)
  rmSync(stateFile(resolve(folder)), { force: true })
  return running.map((one) => one.name)
}
