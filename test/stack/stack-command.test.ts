import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { requireStackBinaries } from '../../exporter/demo/stack/binaries.ts'
import { freePorts, isFree } from '../../exporter/demo/stack/ports.ts'
import { serverStatus, startServers, stopServers } from '../../scripts/stack-run.ts'
import { stackIsThere } from '../helpers/stack.ts'

const root = join(import.meta.dirname, '../..')

function stateFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-stack-command-'))
  onTestFinished(async () => {
    await stopServers(folder)
    rmSync(folder, { recursive: true })
  })
  return folder
}

describe.runIf(stackIsThere())('npm run stack', () => {
  test('starts all four, finds them again, starts only what is missing, and ends them', async () => {
    const options = {
      binaries: requireStackBinaries(),
      folder: stateFolder(),
      ports: await freePorts(),
    }
    const first = await startServers(options)
    expect(first.map(({ name, healthy }) => [name, healthy])).toEqual([
      ['jaeger', true],
      ['alertmanager', true],
      ['prometheus', true],
      ['collector', true],
    ])
    const [jaeger, alertmanager] = first
    process.kill(alertmanager?.pid ?? 0, 'SIGKILL')
    await expect
      .poll(async () => (await serverStatus(options.folder)).map(({ running }) => running))
      .toEqual([true, false, true, true])
    const second = await startServers(options)
    expect(second.map(({ healthy }) => healthy)).toEqual([true, true, true, true])
    expect(second.find(({ name }) => name === 'jaeger')?.pid).toBe(jaeger?.pid)
    expect(second.find(({ name }) => name === 'alertmanager')?.pid).not.toBe(alertmanager?.pid)
    expect(await stopServers(options.folder)).toHaveLength(4)
    expect(await serverStatus(options.folder)).toEqual([])
  })

  test('names the port that another process holds, and starts nothing', async () => {
    const ports = await freePorts()
    const other = createServer()
    await new Promise<void>((resolve) => {
      other.listen(ports.prometheus, '127.0.0.1', resolve)
    })
    onTestFinished(() => {
      other.close()
    })
    const options = { binaries: requireStackBinaries(), folder: stateFolder(), ports }
    await expect(startServers(options)).rejects.toThrow(
      `port ${ports.prometheus} on 127.0.0.1 to be free, for the prometheus`,
    )
    expect(await serverStatus(options.folder)).toEqual([])
  })

  test('starts nothing with a Collector configuration that is not there', async () => {
    const options = { binaries: requireStackBinaries(), folder: stateFolder() }
    const collectorConfig = join(options.folder, 'nope.yaml')
    const started = startServers({ ...options, ports: await freePorts(), collectorConfig })
    await expect(started).rejects.toMatchObject({
      code: 'RING2_E_CONFIG',
      expected: `--collector ${collectorConfig} to be a Collector configuration`,
    })
    expect(await serverStatus(options.folder)).toEqual([])
  })

  test('ends what it started when one server does not start', async () => {
    const options = { binaries: requireStackBinaries(), folder: stateFolder() }
    const ports = await freePorts()
    const collectorConfig = join(options.folder, 'wrong.yaml')
    writeFileSync(collectorConfig, 'receivers: 7')
    await expect(startServers({ ...options, ports, collectorConfig })).rejects.toThrow('collector')
    expect(await serverStatus(options.folder)).toEqual([])
    expect(await isFree(ports.prometheus)).toBe(true)
  })

  test('never ends a process that only has the number of one it started', async () => {
    const folder = stateFolder()
    const entry = { name: 'jaeger', pid: process.pid, startTime: '1', healthUrl: '', log: '' }
    writeFileSync(join(folder, 'stack.json'), JSON.stringify([entry]))
    expect((await serverStatus(folder)).map(({ running }) => running)).toEqual([false])
    expect(await stopServers(folder)).toEqual([])
  })
})

describe('npm run stack, without what it needs', () => {
  const command = (args: string[], environment: Record<string, string>) => {
    try {
      const output = execFileSync(process.execPath, [join(root, 'scripts/stack.ts'), ...args], {
        env: { ...process.env, ...environment },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      return { status: 0, output }
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: string }
      return { status, output: stderr }
    }
  }

  test('says which Go to install', () => {
    const nothing = {
      PATH: '/nowhere',
      RING2_STACK_DIR: '',
      XDG_CACHE_HOME: join(tmpdir(), 'none'),
    }
    const { status, output } = command(['build'], nothing)
    expect(status).toBe(1)
    expect(output).toContain('Go 1.26 or newer')
    expect(output).toContain('https://go.dev/dl/')
  })

  test('says what a folder of one’s own lacks', () => {
    const { status, output } = command(['build'], { RING2_STACK_DIR: root })
    expect(status).toBe(1)
    expect(output).toContain('it lacks otelcol, jaeger, prometheus, promtool, alertmanager, amtool')
  })

  test('answers an unknown command or flag with its usage and status 2', () => {
    for (const args of [['bogus'], ['build', '--bogus'], []]) {
      const { status, output } = command(args, {})
      expect([status, output.includes('usage: npm run stack')]).toEqual([2, true])
      const [wrong = ''] = args.slice(-1)
      expect(output).toContain(wrong)
    }
  })

  test('is asked for the Go that CI checks for', () => {
    const required = /goMinor = (\d+)/.exec(
      readFileSync(join(root, 'scripts/stack-build.ts'), 'utf8'),
    )
    expect(readFileSync(join(root, '.ci/run'), 'utf8')).toContain(`Go 1.${required?.[1]} or newer`)
  })
})
