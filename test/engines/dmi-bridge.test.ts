/**
 * What DMI would write to ClickHouse, sent by real clients to the bridge, with a real ClickHouse behind it:
 * the tensors of a real model come out of the exporter, and out of the table, equal byte for byte.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  exporterEnvironment,
  get,
  killAll,
  modelFolder,
  python,
  repository,
  startExporter,
} from '../pipeline/processes.ts'

const wait = { timeout: 60_000, interval: 200 }
const scripts = join(import.meta.dirname, 'dmi')
const trace = '4bf92f3577b34da6a3ce929d0e0e4736'

const clickhouse = ['/usr/sbin/clickhouse-server', '/usr/bin/clickhouse-server'].find(existsSync)
if (clickhouse === undefined) {
  const missing =
    'clickhouse-server is not here (apt-get install clickhouse-server clickhouse-client)'
  const required = process.env.CI !== undefined || process.env.RING2_REQUIRE_STACK !== undefined
  if (required) throw new Error(missing)
  process.stderr.write(`${missing}: the bridge is tested without it\n`)
}

type Row = readonly [
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

const workspace = createWorkspace()
const folder = join(workspace.root, 'rows')
const children: ChildProcess[] = []
let exporter: Exporter
let rows: readonly Row[]

beforeAll(async () => {
  mkdirSync(folder)
  runScript('capture.py', [folder, modelFolder()])
  rows = JSON.parse(readFileSync(join(folder, 'rows.json'), 'utf8'))
  exporter = await startExporter(workspace)
})

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  killAll()
  workspace.remove()
})

function runScript(script: string, words: readonly string[]): string {
  const done = spawnSync(python, [join(scripts, script), ...words], { encoding: 'utf8' })
  expect(done.status, done.stderr).toBe(0)
  return done.stdout
}

interface Bridge {
  readonly port: number
  stop(): Promise<Record<string, number>>
}

async function startBridge(segment: string, more: readonly string[] = []): Promise<Bridge> {
  const words = [
    'dmi-bridge',
    '--listen',
    '127.0.0.1:0',
    '--segment',
    segment,
    '--payload-mb',
    '64',
  ]
  const command = join(repository, 'bin/ring2-exporter.js')
  const child = spawn(process.execPath, [command, ...words, ...more], {
    env: {
      ...exporterEnvironment(workspace, {}),
      ...(process.env.RING2_DMI_BRIDGE === undefined
        ? {}
        : { RING2_DMI_BRIDGE: process.env.RING2_DMI_BRIDGE }),
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

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
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

/** All rows of a hook, in order of their tokens. */
function expected(request: string, act: string, layer: number): Buffer {
  const own = rows.filter((row) => row[1] === request && row[2] === act && row[3] === layer)
  const ordered = own.toSorted((left, right) => left[5] - right[5])
  return Buffer.concat(ordered.map((row) => readFileSync(join(folder, row[9]))))
}

async function fetched(trace: string, hook: string, layer: number, tokens = ''): Promise<Buffer> {
  const url = `${exporter.url}/v1/traces/${trace}/tensors/${hook}/${layer}?format=safetensors${tokens}`
  const answer = await get(url)
  expect(answer.status, Buffer.from(answer.bytes).toString().slice(0, 300)).toBe(200)
  const bytes = Buffer.from(answer.bytes)
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)))
}

interface TraceView {
  readonly requests: readonly {
    readonly request_id: string
    readonly model: string
    readonly completeness: string
  }[]
}

test('rows of a model spread over ten connections are fetched as they were, and read back from the table', async () => {
  const port = clickhouse === undefined ? null : await startClickHouse(clickhouse)
  const tee = port === null ? [] : ['--tee', `127.0.0.1:${port}`, '--tee-wait-ms', '30000']
  const bridge = await startBridge('dmi', tee)
  const words = [folder, String(bridge.port), '--client', 'raw']
  const sent = JSON.parse(
    runScript('feed.py', [...words, ...(port === null ? [] : ['--read-back'])]),
  )
  const all = rows.length
  expect(sent).toEqual(port === null ? { sent: all } : { sent: all, read: all, equal: all })
  const counts = await bridge.stop()
  expect(counts).toMatchObject({
    rows: all,
    rows_written: all,
    rows_lost: 0,
    requests: 2,
    steps: 8,
    tees_cut: 0,
    connections_framing_lost: 0,
  })
  const view = await vi.waitFor(async () => {
    const answer = await get(`${exporter.url}/v1/traces/${trace}`)
    expect(answer.status).toBe(200)
    const found = answer.json<TraceView>()
    expect(found.requests[0]?.completeness).toBe('complete')
    return found
  }, wait)
  const request = `${trace}-00f067aa0ba902b7`
  expect(view.requests.map((one) => [one.request_id, one.model])).toEqual([[request, 'dmi-hf']])
  for (const layer of [0, 17, 29]) {
    const stitched = await fetched(trace, 'resid_pre', layer)
    expect(stitched.equals(expected(request, 'blocks.hook_resid_pre', layer))).toBe(true)
  }
  expect((await fetched(trace, 'token_ids', -1)).equals(expected(request, 'token_ids', -1))).toBe(
    true,
  )
  const logits = await fetched(trace, 'final_logits', -1)
  expect(logits.equals(expected(request, 'final_logits', -1))).toBe(true)
  const prompt = rows.find((row) => row[1] === request && row[2].endsWith('pattern'))
  const pattern = await fetched(trace, 'pattern', 0, `&tokens=0:${prompt?.[6]}`)
  expect(pattern.equals(readFileSync(join(folder, prompt?.[9] ?? '')))).toBe(true)
})

test('clickhouse-driver and clickhouse-client are served alike, and no ClickHouse is no trouble', async () => {
  // Nobody listens where the tee goes.
  const bridge = await startBridge('dmi-clients', ['--tee', `127.0.0.1:${await freePort()}`])
  const words = [folder, String(bridge.port)]
  const clients = ['none', 'lz4', 'zstd'].map((method) => [
    '--client',
    'driver',
    ...(method === 'none' ? [] : ['--compression', method]),
  ])
  if (clickhouse !== undefined) {
    for (const method of ['lz4', 'zstd']) {
      clients.push([
        '--client',
        'cli',
        '--compression',
        method,
        '--connections',
        '1',
        '--batch',
        '300',
      ])
    }
  }
  for (const client of clients) {
    expect(JSON.parse(runScript('feed.py', [...words, ...client]))).toEqual({ sent: rows.length })
  }
  const counts = await bridge.stop()
  expect(counts.rows).toBe(rows.length * clients.length)
  // The same rows again are duplicates while their request goes on.
  expect(Number(counts.rows_written) + Number(counts.rows_duplicate)).toBe(counts.rows)
  expect(counts).toMatchObject({ rows_lost: 0, connections_framing_lost: 0, blocks_damaged: 0 })
  expect(counts.tees_cut).toBe(counts.connections)
})
