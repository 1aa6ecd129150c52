/** Deleting, redacting and retention on the command line and over HTTP, with real processes. */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { deriveTraceId } from '../../collector/ids.ts'
import { float32, openProducer } from '../helpers/producer.ts'
import { endRequest, stepValues, writeRequest, writeStep } from '../helpers/requests.ts'
import {
  createWorkspace,
  type Exporter,
  expectError,
  type Finished,
  get,
  killAll,
  runExporter,
  type Settings,
  startExporter,
} from './processes.ts'

const workspace = createWorkspace()
const settings: Settings = {
  RING2_CAPTURE_REDACT_HOOKS: 'resid_mid',
  RING2_CAPTURE_REDACT_ATTRIBUTES: 'user.*',
}
const [first, second, third] = [1, 2, 3].map((key) => deriveTraceId(`request-${key}`)) as [
  string,
  string,
  string,
]
const hidden = Array.from({ length: 12 }, (_, index) => 12_345.5 + index * 3.0625)
let exporter: Exporter

const run = (words: readonly string[], more: Settings = {}): Finished =>
  runExporter(workspace, words, { ...settings, ...more })

async function remove(path: string): Promise<Response> {
  return await fetch(`${exporter.url}${path}`, { method: 'DELETE' })
}

/** Files of the store and of its state that hold the bytes. */
function filesWith(bytes: Uint8Array | string): string[] {
  const found: string[] = []
  for (const entry of readdirSync(workspace.root, { recursive: true, encoding: 'utf8' })) {
    const path = join(workspace.root, entry)
    if (statSync(path).isFile() && readFileSync(path).includes(Buffer.from(bytes)))
      found.push(entry)
  }
  return found
}

function payloadOf(key: number): Uint8Array {
  return float32(stepValues(key, 1, 0, 3))
}

beforeAll(async () => {
  exporter = await startExporter(workspace, settings)
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  producer.model({ hooks: { resid_pre: [0, 1], resid_mid: [0] } })
  for (const key of [1, 2]) writeRequest(producer, key, 3, 2)
  const attributes = { 'user.id': 'someone@example.org', route: '/chat' }
  producer.request({ key: 3, request_id: 'request-3', attributes })
  writeStep(producer, 3, 0, 3)
  const redacted = { hook: 'resid_mid', layer: 0, step: 3000, dims: [1, 3, 4] }
  producer.tensor(redacted, float32(hidden))
  await vi.waitUntil(
    async () => {
      const { traces } = (await get(`${exporter.url}/v1/traces`)).json<{ traces: unknown[] }>()
      return traces.length === 3
    },
    { timeout: 30_000, interval: 100 },
  )
  const answer = await remove(`/v1/traces/${third}`)
  expect(answer.status).toBe(409)
  expect(await answer.json()).toMatchObject({ code: 'RING2_E_UNSETTLED' })
  endRequest(producer, 3, 3, 1)
  producer.close()
  await vi.waitUntil(() => !existsSync(producer.path), { timeout: 30_000, interval: 100 })
}, 120_000)

afterAll(() => {
  killAll()
  workspace.remove()
})

describe('Redaction', () => {
  test('keeps shape and statistics of a redacted hook, and no byte of it anywhere', async () => {
    const url = `${exporter.url}/v1/traces/${third}/tensors`
    const listed = (await get(`${url}?hook=resid_mid`)).json<{ tensors: object[] }>()
    expect(listed.tensors).toMatchObject([
      { hook: 'resid_mid', shape: [3, 4], encoding: 'redacted', data_bytes: 0 },
    ])
    const answer = await get(`${url}/resid_mid/0`)
    expect(answer.status).toBe(410)
    expect(answer.json()).toMatchObject({ code: 'RING2_E_REDACTED' })
    expect(filesWith(float32(hidden))).toEqual([])
    expect(filesWith(payloadOf(3))).not.toEqual([])
  })

  test('is passed over and named by a fetch of several tensors, and is the error of one', () => {
    const done = runExporter(workspace, ['fetch', third, '-o', 'some', '--json'])
    expect(done).toMatchObject({ code: 0 })
    expect(done.stderr).toContain('resid_mid layer 0 of request-3: redacted')
    const said = JSON.parse(done.stdout)
    expect(said.redacted).toEqual([{ hook: 'resid_mid', layer: 0, request_id: 'request-3' }])
    const files = readdirSync(join(workspace.root, 'some/request-3'))
    expect(files.sort()).toEqual(['resid_pre.0.npy', 'resid_pre.1.npy'])
    expect(said.tensors).toHaveLength(2)
    rmSync(join(workspace.root, 'some'), { recursive: true })
    const one = runExporter(workspace, ['fetch', third, '--hook', 'resid_mid'])
    expectError(one, 1, 'RING2_E_REDACTED')
  })

  test('leaves the values of redacted attributes out of every file and answer', async () => {
    expect(filesWith('someone@example.org')).toEqual([])
    expect(filesWith('/chat')).not.toEqual([])
    const text = JSON.stringify((await get(`${exporter.url}/v1/traces/${third}`)).json())
    expect(text).not.toContain('someone@example.org')
  })
})

describe('DELETE /v1/traces/{trace_id}', () => {
  test('removes a trace from a running store, and leaves the others', async () => {
    expect(filesWith(payloadOf(1))).not.toEqual([])
    const answer = await remove(`/v1/traces/${first}?request_id=request-1`)
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({ trace_id: first, requests: 1, tensors: 4 })
    expect(filesWith(payloadOf(1))).toEqual([])
    expect(filesWith(first)).toEqual([])
    expect((await get(`${exporter.url}/v1/traces/${first}`)).status).toBe(404)
    expect((await get(`${exporter.url}/v1/traces/${second}/tensors/resid_pre/1`)).status).toBe(200)
  })

  test('answers 404 for a trace that is not there, and 400 for what is no trace id', async () => {
    expect((await remove(`/v1/traces/${first}`)).status).toBe(404)
    for (const id of ['..%2f..%2fetc', '*', 'ABC']) {
      expect((await remove(`/v1/traces/${id}`)).status).toBe(400)
    }
    expect((await remove(`/v1/traces/${second}?requst_id=1`)).status).toBe(400)
  })
})

describe('ring2-exporter delete', () => {
  test('asks, or is told not to', () => {
    const stderr = expectError(run(['delete', second]), 2, 'RING2_E_QUERY')
    expect(stderr).toContain('--yes')
  })

  test('removes a trace, and says what it removed', async () => {
    const done = run(['delete', second, '--yes', '--json'])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    expect(JSON.parse(done.stdout)).toMatchObject({ trace_id: second, requests: 1, tensors: 4 })
    expect(filesWith(payloadOf(2))).toEqual([])
    expect((await get(`${exporter.url}/v1/traces/${second}`)).status).toBe(404)
  })

  test('says that a trace is not there, and what is no trace id', () => {
    expectError(run(['delete', second, '--yes']), 3, 'RING2_E_TRACE_UNKNOWN')
    expectError(run(['delete', '../x', '--yes']), 2, 'RING2_E_TRACE_ID')
  })
})

describe('ring2-exporter retention run', () => {
  const age = { RING2_RETENTION_MAX_AGE: '1d' }

  /** Makes every file as old as one that was captured in January 2026. */
  function age2026(): void {
    for (const entry of readdirSync(workspace.store, { recursive: true, encoding: 'utf8' })) {
      if (!/date=\d{4}-\d{2}-\d{2}$/.test(entry)) continue
      const path = join(workspace.store, entry)
      renameSync(path, path.replace(/date=.*$/, 'date=2026-01-02'))
    }
  }

  test('is refused without a rule', () => {
    expectError(run(['retention', 'run']), 2, 'RING2_E_CONFIG')
  })

  test('refuses a rule that says nothing', () => {
    const rule = { RING2_RETENTION_MODELS: 'model=50GB' }
    expectError(run(['retention', 'run'], rule), 2, 'RING2_E_CONFIG')
  })

  test('leaves what is young, shows what is old, and removes it', async () => {
    expect(await exporter.stop()).toBe(0)
    const young = run(['retention', 'run', '--json'], age)
    expect(JSON.parse(young.stdout)).toMatchObject({ files: 0 })
    age2026()
    expect(run(['catalog', 'rebuild']).code).toBe(0)
    const dry = run(['retention', 'run', '--dry-run', '--json'], age)
    const planned = JSON.parse(dry.stdout)
    expect(planned.files).toBeGreaterThan(0)
    expect(JSON.parse(run(['ls', '--json']).stdout).traces).toHaveLength(1)
    const kept = run(['retention', 'run', '--json'], { ...age, RING2_RETENTION_MODELS: '*=keep' })
    expect(JSON.parse(kept.stdout)).toMatchObject({ files: 0 })
    const done = JSON.parse(run(['retention', 'run', '--json'], age).stdout)
    expect(done.removed).toEqual(planned.removed)
    expect(filesWith(payloadOf(3))).toEqual([])
  })
})
