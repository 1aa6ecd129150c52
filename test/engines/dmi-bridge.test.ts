/**
 * What DMI would write to ClickHouse, sent by real clients to the bridge, with a real ClickHouse behind it:
 * the tensors of a real model come out of the exporter, and out of the table, equal byte for byte.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  modelFolder,
  startExporter,
} from '../pipeline/processes.ts'
import { createBridges, findProgram, freePort, type Row, runScript, wait } from './dmi/bridge.ts'

const trace = '4bf92f3577b34da6a3ce929d0e0e4736'

const clickhouse = findProgram(
  ['/usr/sbin/clickhouse-server', '/usr/bin/clickhouse-server'],
  'clickhouse-server is not here (apt-get install clickhouse-server clickhouse-client)',
)

const workspace = createWorkspace()
const bridges = createBridges(workspace)
const folder = join(workspace.root, 'rows')
let exporter: Exporter
let rows: readonly Row[]

beforeAll(async () => {
  mkdirSync(folder)
  runScript('capture.py', [folder, modelFolder()])
  rows = JSON.parse(readFileSync(join(folder, 'rows.json'), 'utf8'))
  exporter = await startExporter(workspace)
})

afterAll(() => {
  bridges.killAll()
  killAll()
  workspace.remove()
})

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
  const port = clickhouse === undefined ? null : await bridges.startClickHouse(clickhouse)
  const tee = port === null ? [] : ['--tee', `127.0.0.1:${port}`, '--tee-wait-ms', '30000']
  const bridge = await bridges.start('dmi', tee)
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
  const bridge = await bridges.start('dmi-clients', ['--tee', `127.0.0.1:${await freePort()}`])
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

test("rows of ClickHouse's client in Go are fetched as they were, with and without compression", async () => {
  const go = findProgram(
    (process.env.PATH ?? '').split(':').map((path) => join(path, 'go')),
    'go is not here',
  )
  if (go === undefined) return
  const client = join(workspace.root, 'ch-go-client')
  const built = spawnSync(go, ['build', '-mod=readonly', '-trimpath', '-o', client, '.'], {
    cwd: join(import.meta.dirname, 'dmi/ch-go'),
    env: { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-buildvcs=false' },
    encoding: 'utf8',
  })
  expect(built.status, built.stderr).toBe(0)
  // The prompt of the first request alone, under a trace of its own.
  const own = '0af7651916cd43dd8448eb211c80319c'
  const request = `${own}-b7ad6b7169203331`
  const step = rows.filter((row) => row[1].startsWith(trace) && row[6] === rows[0]?.[6])
  const named = step.map((row) => [row[0], request, ...row.slice(2, 9), join('../rows', row[9])])
  const goFolder = join(workspace.root, 'go')
  mkdirSync(goFolder)
  writeFileSync(join(goFolder, 'rows.json'), JSON.stringify(named))
  const bridge = await bridges.start('dmi-go')
  const words = [goFolder, String(bridge.port), 'none', 'lz4', 'zstd']
  const sent = spawnSync(client, words, { encoding: 'utf8' })
  expect(sent.stderr).toBe('')
  expect(JSON.parse(sent.stdout)).toEqual({ sent: step.length })
  const counts = await bridge.stop()
  expect(counts).toMatchObject({
    connections: 3,
    rows: step.length,
    rows_written: step.length,
    blocks_damaged: 0,
    connections_framing_lost: 0,
  })
  await vi.waitFor(async () => {
    const view = (await get(`${exporter.url}/v1/traces/${own}`)).json<TraceView>()
    expect(view.requests.map((one) => one.completeness)).toEqual(['complete'])
  }, wait)
  for (const row of step.filter((row) => row[2].endsWith('resid_pre') && row[3] % 10 === 0)) {
    const got = await fetched(own, 'resid_pre', row[3])
    expect(got.equals(readFileSync(join(folder, row[9])))).toBe(true)
  }
})
