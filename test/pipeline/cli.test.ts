/** The command line as a user types it: live rings, completion, usage, and errors that help. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { openProducer, poke, type TestProducer } from '../helpers/producer.ts'
import { pipe } from './cli-store.ts'
import {
  createWorkspace,
  expectError,
  type Finished,
  get,
  killAll,
  runExporter,
  type Settings,
  startExporter,
} from './processes.ts'

const workspace = createWorkspace()
let live: TestProducer

const run = (words: readonly string[], settings: Settings = {}): Finished =>
  runExporter(workspace, words, settings)

/** Of consumer_pid in the header of a segment. */
const consumerPidOffset = 1096

beforeAll(() => {
  live = openProducer({ directory: workspace.segments, name: 'live', payloadBytes: 65_536 })
  live.model()
})

afterAll(() => {
  killAll()
  live?.close()
  workspace.remove()
})

describe('rings', () => {
  test('shows what is live, without taking it', () => {
    const done = run(['rings'])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    expect(done.stdout).toMatch(/^SEGMENT +PRODUCER +EXPORTER/)
    expect(done.stdout).toMatch(new RegExp(`live +${process.pid} alive +none +1 +1 +`))
  })

  test('as JSON gives the counters, and beside them what cannot be read', () => {
    const broken = join(workspace.segments, 'ring2.broken')
    writeFileSync(broken, 'nothing of the kind')
    const done = run(['rings', '--json'])
    rmSync(broken)
    expect(done.code).toBe(0)
    expect(JSON.parse(done.stdout)).toMatchObject({
      segments: [
        {
          segment: 'live',
          producer: { pid: process.pid, state: 'alive' },
          exporter: { pid: 0, state: 'none' },
          meta: { used: 1 },
        },
      ],
      unreadable: [{ path: broken, error: { code: 'RING2_E_NOT_A_SEGMENT' } }],
    })
  })

  test('shows counters that no number holds instead of failing', () => {
    const other = openProducer({ directory: workspace.segments, name: 'odd', payloadBytes: 65_536 })
    poke(other.path, 336, Buffer.alloc(8, 0xff))
    expect(run(['rings'])).toMatchObject({ code: 0 })
    other.close()
    rmSync(other.path, { force: true })
  })
})

describe('rings of an exporter that was killed', () => {
  test('says that it is dead, and of one that lives it does not', () => {
    const killed = spawnSync('true')
    const other = openProducer({
      directory: workspace.segments,
      name: 'left',
      payloadBytes: 65_536,
    })
    const claim = (pid: number) => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32LE(pid)
      poke(other.path, consumerPidOffset, bytes)
    }
    claim(killed.pid)
    expect(run(['rings']).stdout).toMatch(
      new RegExp(`left +${process.pid} alive +${killed.pid} dead`),
    )
    const { segments } = JSON.parse(run(['rings', '--json']).stdout)
    expect(segments).toContainEqual(
      expect.objectContaining({ exporter: { pid: killed.pid, state: 'dead' } }),
    )
    claim(process.pid)
    expect(run(['rings']).stdout).toMatch(
      new RegExp(`left +${process.pid} alive +${process.pid} +0`),
    )
    claim(0)
    other.close()
    rmSync(other.path, { force: true })
  })

  test('says on standard error where it looked when nothing is there', () => {
    const empty = join(workspace.root, 'no-segments')
    mkdirSync(empty)
    const done = run(['rings'], { RING2_SEGMENTS_DIRECTORY: empty, RING2_SEGMENTS_NAMES: 'a*,b' })
    expect(done).toEqual({
      code: 0,
      stdout: '',
      stderr: `no segments matching a*, b in ${empty}\n`,
    })
  })

  test('--watch dates every table of a log, and ends when nobody reads it', () => {
    const done = pipe(workspace, ['rings', '--watch'], 'head -n 2')
    expect(done.stdout).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z\nSEGMENT +PRODUCER/)
    expect(done.stderr).toBe('0\n')
  })
})

describe('completion', () => {
  test.each(['bash', 'zsh', 'fish'])('for %s knows the commands and their options', (shell) => {
    const done = run(['completion', shell])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    for (const word of ['run', 'fetch', 'catalog', 'rebuild', 'require-complete', 'verdict']) {
      expect(done.stdout).toContain(word)
    }
  })

  test('for another shell says which there are', () => {
    expect(expectError(run(['completion', 'tcsh']), 2, 'RING2_E_QUERY')).toContain(
      'bash, zsh, fish',
    )
  })
})

describe('usage', () => {
  test('an unknown command or option exits with 2 and says which', () => {
    for (const words of [['fetsch'], ['ls', '--modle', 'x'], ['fetch']]) {
      const done = run(words)
      expect(done).toMatchObject({ code: 2, stdout: '' })
      expect(done.stderr).toMatch(/^error: /)
    }
  })

  test('--help and --version exit with 0', () => {
    expect(run(['--help'])).toMatchObject({ code: 0, stderr: '' })
    expect(run(['--version']).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  test('run at an address that another program has says which, and what to set', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const done = run(['run'], { RING2_API_PORT: String(address.port) })
    await new Promise((resolve) => void server.close(resolve))
    const told = done.stderr.split('\n').filter((line) => !line.startsWith('{'))
    expect(done.code).toBe(1)
    expect(told[0]).toBe('RING2_E_LISTEN: The HTTP API could not listen at its address.')
    expect(told.join(' ')).toMatch(new RegExp(`port ${address.port}.*EADDRINUSE.*api\\.port`))
  })

  test('run with a store that cannot be made says so at once and exits with 1', () => {
    const file = join(workspace.root, 'in-the-way')
    writeFileSync(file, '')
    const done = run(['run', '--store', join(file, 'store')])
    expect(done.code).toBe(1)
    expect(done.stderr).toContain('RING2_E_STORE')
    expect(done.stderr).toContain('in-the-way')
  })
})

test('rings show which process of a parallel model a segment is of, once an exporter has drained it', async () => {
  const parallel = openProducer({
    directory: workspace.segments,
    name: 'shared',
    payloadBytes: 65_536,
  })
  const ranks = { tp: 1, pp: 0, dp: 2, ep: 0 }
  const world = { tp: 2, pp: 1, dp: 4, ep: 1 }
  parallel.model({ ranks, world })
  parallel.request({ key: 1, request_id: 'one' })
  expect(run(['rings']).stdout).not.toContain('RANKS')
  const exporter = await startExporter(workspace)
  const row = await vi.waitFor(
    async () => {
      const { segments } = (await get(`${exporter.url}/v1/rings`)).json<{
        segments: { segment: string; parallel: unknown }[]
      }>()
      const found = segments.find(({ segment }) => segment === 'shared')
      expect(found?.parallel).not.toBeNull()
      return { found, other: segments.find(({ segment }) => segment === 'live') }
    },
    { timeout: 30_000, interval: 100 },
  )
  expect(row).toMatchObject({ found: { parallel: { ranks, world } }, other: { parallel: null } })
  expect(run(['rings']).stdout).toMatch(
    /^SEGMENT +RANKS +PRODUCER.*\nlive +– +.*\nshared +tp 1\/2, dp 2\/4 +/,
  )
  parallel.close()
  await exporter.stop()
})
