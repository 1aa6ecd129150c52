/** The bridge, its clients and a real ClickHouse as processes of a test. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, vi } from 'vitest'
import {
  exporterEnvironment,
  python,
  repository,
  type Workspace,
} from '../../pipeline/processes.ts'

export const wait = { timeout: 60_000, interval: 200 }
const scripts = import.meta.dirname

/** As rows.json has them; the last is the name of the file that holds the bytes. */
export type Row = readonly [
  model: string,
  request: string,
  act: string,
  layer: number,
  shard: number,
  start: number,
  end: number,
  dtype: string,
  shape: readonly number[],
  file: string,
]

export function findProgram(paths: readonly string[], missing: string): string | undefined {
  const found = paths.find((path) => existsSync(path))
  if (found !== undefined) return found
  const required = process.env.CI !== undefined || process.env.RING2_REQUIRE_STACK !== undefined
  if (required) throw new Error(missing)
  process.stderr.write(`${missing}: the bridge is tested without it\n`)
  return undefined
}

/** Runs a script of this folder to its end; what it printed. */
export function runScript(script: string, words: readonly string[]): string {
  const done = spawnSync(python, [join(scripts, script), ...words], { encoding: 'utf8' })
  expect(done.status, done.stderr).toBe(0)
  return done.stdout
}

export interface Bridge {
  readonly port: number
  /** Its counts. */
  stop(): Promise<Record<string, number>>
}

export interface RunningScript {
  readonly child: ChildProcess
  readonly line: string
}

export interface Bridges {
  start(segment: string, more?: readonly string[]): Promise<Bridge>
  /** Starts a script of this folder, and gives it back with the first line that it prints. */
  startScript(script: string, words: readonly string[]): Promise<RunningScript>
  startClickHouse(program: string): Promise<number>
  killAll(): void
}

export function createBridges(workspace: Workspace): Bridges {
  const children: ChildProcess[] = []

  async function start(segment: string, more: readonly string[] = []): Promise<Bridge> {
    const command = join(repository, 'bin/ring2-exporter.js')
    const own = process.env.RING2_DMI_BRIDGE
    const words = ['--listen', '127.0.0.1:0', '--segment', segment, '--payload-mb', '64', ...more]
    const child = spawn(process.execPath, [command, 'dmi-bridge', ...words], {
      env: {
        ...exporterEnvironment(workspace, {}),
        ...(own === undefined ? {} : { RING2_DMI_BRIDGE: own }),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    children.push(child)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const nextLine = async () => JSON.parse((await lines.next()).value ?? '')
    const first = (await nextLine()) as { listening: string }
    return {
      port: Number(first.listening.split(':')[1]),
      async stop() {
        const exited = once(child, 'exit')
        child.kill('SIGTERM')
        const counts = (await nextLine()) as Record<string, number>
        expect(await exited).toEqual([0, null])
        return counts
      },
    }
  }

  async function startScript(script: string, words: readonly string[]): Promise<RunningScript> {
    const stdio = ['ignore', 'pipe', 'inherit'] as const
    const child = spawn(python, [join(scripts, script), ...words], { stdio: [...stdio] })
    children.push(child)
    if (child.stdout === null) throw new Error('no standard output')
    const [line] = await once(createInterface({ input: child.stdout }), 'line')
    return { child, line: String(line) }
  }

  async function startClickHouse(program: string): Promise<number> {
    const port = await freePort()
    const home = join(workspace.root, 'clickhouse')
    mkdirSync(home)
    for (const name of ['clickhouse.xml', 'users.xml']) {
      const text = readFileSync(join(scripts, name), 'utf8')
      writeFileSync(join(home, name), text.replaceAll('FOLDER', home).replace('PORT', String(port)))
    }
    const words = [`--config-file=${join(home, 'clickhouse.xml')}`]
    children.push(spawn(program, words, { cwd: home, stdio: 'ignore' }))
    await vi.waitFor(() => {
      const words = ['--port', String(port), '--query', 'SELECT 1']
      expect(spawnSync('clickhouse-client', words, { encoding: 'utf8' }).stdout).toBe('1\n')
    }, wait)
    return port
  }

  return {
    start,
    startScript,
    startClickHouse,
    killAll() {
      for (const child of children) child.kill('SIGKILL')
    },
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
