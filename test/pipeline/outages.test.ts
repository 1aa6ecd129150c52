/**
 * Things that are not there, refuse, or are taken: the exporter says so, goes on serving, and has
 * everything as soon as they are back.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { startReceiver } from '../helpers/otlp-receiver.ts'
import { openProducer, type TestProducer } from '../helpers/producer.ts'
import { beginRequest, endRequest, writeRequest, writeStep } from '../helpers/requests.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  startExporter,
  type Workspace,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const wait = { timeout: 30_000, interval: 100 }

afterAll(killAll)

function workspaceOfTest(): Workspace {
  const workspace = createWorkspace()
  onTestFinished(() => workspace.remove())
  return workspace
}

function producerOfTest(workspace: Workspace): TestProducer {
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  onTestFinished(() => producer.close())
  producer.model()
  return producer
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => void server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

interface Health {
  readonly checks: readonly { readonly name: string; readonly ok: boolean }[]
}

async function check(exporter: Exporter, name: string): Promise<boolean | undefined> {
  const answer = await get(`${exporter.url}/readyz`)
  return answer.json<Health>().checks.find((one) => one.name === name)?.ok
}

/** Request ids and rows that the store holds. */
async function stored({ store }: Workspace): Promise<{ requests: string[]; rows: number }> {
  const requests = await queryDuckDb(`SELECT request_id FROM ${requestsOf(store)} ORDER BY 1`)
  const [count] = await queryDuckDb(
    `SELECT count(*)::INTEGER AS rows, count(DISTINCT (request_id, layer, step))::INTEGER AS places
     FROM ${tensorsOf(store)}`,
  )
  expect(count?.places).toBe(count?.rows)
  return { requests: requests.map((row) => String(row.request_id)), rows: Number(count?.rows) }
}

async function requestsListed(exporter: Exporter): Promise<number> {
  const { traces } = (await get(`${exporter.url}/v1/traces`)).json<{
    traces: { ended_at: unknown }[]
  }>()
  return traces.filter(({ ended_at }) => ended_at !== null).length
}

test('a Collector that is not there at the start gets every span when it comes', async () => {
  const workspace = workspaceOfTest()
  const port = await freePort()
  const exporter = await startExporter(workspace, {
    RING2_TELEMETRY_ENDPOINT: `http://127.0.0.1:${port}`,
  })
  const producer = producerOfTest(workspace)
  for (const key of [1, 2, 3]) writeRequest(producer, key, 3, 2)
  await vi.waitUntil(async () => (await requestsListed(exporter)) === 3, wait)
  await vi.waitUntil(async () => (await check(exporter, 'telemetry')) === false, wait)
  expect((await get(`${exporter.url}/readyz`)).status).toBe(200)
  const receiver = await startReceiver(['--port', String(port)])
  onTestFinished(() => receiver.stop())
  await vi.waitUntil(() => receiver.spans().length >= 9, { ...wait, timeout: 60_000 })
  expect(new Set(receiver.spans().map(({ spanId }) => spanId)).size).toBe(9)
  await vi.waitUntil(() => receiver.metrics().length > 0, wait)
  await vi.waitUntil(async () => (await check(exporter, 'telemetry')) === true, wait)
  expect(await exporter.stop()).toBe(0)
})

describe('a store that refuses', () => {
  test('because something is in the way loses nothing, and has everything when it is gone', async () => {
    const workspace = workspaceOfTest()
    mkdirSync(workspace.store)
    const obstacle = join(workspace.store, 'tensors')
    writeFileSync(obstacle, 'in the way')
    const exporter = await startExporter(workspace)
    const producer = producerOfTest(workspace)
    writeRequest(producer, 1, 3, 2)
    const failed = () =>
      exporter.logs().find(({ msg }) => msg === 'could not store; the data waits in the ring')
    await vi.waitUntil(() => failed() !== undefined, wait)
    expect(failed()?.error).toMatchObject({
      code: 'RING2_E_STORE',
      expected: expect.stringContaining(workspace.store),
      action: expect.stringMatching(/./),
    })
    // Goes on serving, and shows that the records wait.
    writeRequest(producer, 2, 3, 2)
    const rings = await get(`${exporter.url}/v1/rings`)
    expect(rings.status).toBe(200)
    expect(existsSync(producer.path)).toBe(true)
    rmSync(obstacle)
    await vi.waitUntil(async () => (await requestsListed(exporter)) === 2, wait)
    expect(await stored(workspace)).toEqual({ requests: ['request-1', 'request-2'], rows: 8 })
    expect(await exporter.stop()).toBe(0)
  })

  test('because it is full: nothing is lost over a restart and a repair', async () => {
    const workspace = workspaceOfTest()
    const first = await startExporter(workspace)
    // No file may grow: the kernel refuses every write, as a full disk does.
    const limit = (bytes: string) =>
      spawnSync('prlimit', ['--pid', String(first.pid), `--fsize=${bytes}:unlimited`])
    expect(limit('0').status).toBe(0)
    const producer = producerOfTest(workspace)
    writeRequest(producer, 1, 3, 2)
    const failed = () =>
      first.logs().find(({ msg }) => msg === 'could not store; the data waits in the ring')
    await vi.waitUntil(() => failed() !== undefined, wait)
    expect(JSON.stringify(failed()?.error)).toContain('EFBIG')
    // It cannot be made safe, so the exit code says so, and the data stays in the ring.
    expect(await first.stop()).toBe(1)
    expect(first.logs().map(({ msg }) => msg)).toContain(
      'not stored: the data stays in the ring for the next start',
    )
    expect(existsSync(producer.path)).toBe(true)
    const second = await startExporter(workspace)
    await vi.waitUntil(async () => (await requestsListed(second)) === 1, wait)
    expect(await stored(workspace)).toEqual({ requests: ['request-1'], rows: 4 })
    expect(await second.stop()).toBe(0)
  })
})

test('a second exporter is told that the segment is taken, serves, and takes over later', async () => {
  const workspace = workspaceOfTest()
  const producer = producerOfTest(workspace)
  const first = await startExporter(workspace)
  beginRequest(producer, 1)
  writeStep(producer, 1, 0, 3)
  await vi.waitUntil(() => first.logs().some(({ msg }) => msg === 'draining a segment'), wait)
  const second = await startExporter(workspace)
  const refused = () => second.logs().filter(({ msg }) => msg === 'cannot drain a segment')
  await vi.waitUntil(() => refused().length > 0, wait)
  expect(refused()[0]).toMatchObject({
    error: { code: 'RING2_E_BUSY', actual: expect.stringContaining(String(first.pid)) },
  })
  expect((await get(`${second.url}/readyz`)).status).toBe(200)
  expect((await get(`${second.url}/v1/rings`)).json()).toMatchObject({
    segments: [{ segment: 'chat', exporter: { pid: first.pid, state: 'alive' } }],
  })
  writeStep(producer, 1, 1, 3)
  expect(await first.stop()).toBe(0)
  writeStep(producer, 1, 2, 3)
  endRequest(producer, 1, 3, 3)
  await vi.waitUntil(async () => (await requestsListed(second)) === 1, wait)
  // Told once, not every time it tried.
  expect(refused()).toHaveLength(1)
  expect(await second.stop()).toBe(0)
  expect(await stored(workspace)).toEqual({ requests: ['request-1'], rows: 6 })
  const [summary] = await queryDuckDb(
    `SELECT completeness, steps::INTEGER AS steps FROM ${requestsOf(workspace.store)}`,
  )
  expect(summary).toEqual({ completeness: 'complete', steps: 3 })
})

test('a file that is no segment is reported, and its neighbour is drained', async () => {
  const workspace = workspaceOfTest()
  writeFileSync(join(workspace.segments, 'ring2.odd'), 'nothing of the kind')
  const exporter = await startExporter(workspace)
  const producer = producerOfTest(workspace)
  writeRequest(producer, 1, 2, 1)
  producer.close()
  await vi.waitUntil(() => !existsSync(producer.path), wait)
  expect(exporter.logs().filter(({ msg }) => msg === 'cannot drain a segment')).toMatchObject([
    { path: join(workspace.segments, 'ring2.odd'), error: { code: 'RING2_E_NOT_A_SEGMENT' } },
  ])
  expect(await exporter.stop()).toBe(0)
  expect(await stored(workspace)).toEqual({ requests: ['request-1'], rows: 2 })
})
