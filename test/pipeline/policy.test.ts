/**
 * What is wanted, set while a real model generates: over the API and the command line, in the middle of
 * requests, with the exporter restarted and with none. The model says the same throughout.
 */
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import {
  createWorkspace,
  type Exporter,
  type GeneratedRequest,
  get,
  killAll,
  type ModelProcess,
  type RequestCommand,
  runExporter,
  startExporter,
  startModel,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const tokens = 5
const workspace = createWorkspace()
const settings = { RING2_CAPTURE_KEEP_POLICY: 'true' }
const headers = { 'content-type': 'application/json' }
const sampled = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
let exporter: Exporter
let model: ModelProcess
let plain: readonly number[]

const command = (id: string, facts: Partial<RequestCommand> = {}): RequestCommand => ({
  id,
  text: 'Name three colors.',
  ...facts,
})

async function put(policy: Record<string, unknown>): Promise<void> {
  const body = JSON.stringify(policy)
  const answer = await fetch(`${exporter.url}/v1/policy`, { method: 'PUT', headers, body })
  expect(answer.status).toBe(200)
}

interface Stored {
  readonly completeness: string
  readonly steps: number
  readonly tokens: number
}

/** What the store says of a request, once it has ended there. */
async function storedOf(id: string): Promise<Stored> {
  const row = await vi.waitFor(
    async () => {
      const [found] = await queryDuckDb(
        `SELECT completeness, steps::INTEGER AS steps, tokens::INTEGER AS tokens
           FROM ${requestsOf(workspace.store)} WHERE request_id = '${id}'`,
      )
      if (found === undefined) throw new Error(`${id} is not stored`)
      return found
    },
    { timeout: 30_000, interval: 200 },
  )
  return row as unknown as Stored
}

/** The token ranges of each hook and layer that are stored of a request. */
async function rangesOf(id: string): Promise<Record<string, readonly string[]>> {
  const rows = await queryDuckDb(
    `SELECT hook || '.' || layer AS name, list(token_start || ':' || token_end ORDER BY step) AS r
       FROM ${tensorsOf(workspace.store)} WHERE request_id = '${id}' GROUP BY name ORDER BY name`,
  )
  return Object.fromEntries(rows.map(({ name, r }) => [name, [...(r as string[])]]))
}

function same(generated: readonly GeneratedRequest[]): number {
  for (const { ids } of generated) expect(ids).toEqual(plain)
  return generated[0]?.prompt ?? 0
}

beforeAll(async () => {
  ;[exporter, model] = await Promise.all([
    startExporter(workspace, settings),
    startModel(workspace, { segment: 'chat', hooks: 'resid_pre,q,final_logits' }),
  ])
  plain = (await model.generate([command('plain')], tokens))[0]?.ids ?? []
  expect(await storedOf('plain')).toMatchObject({ completeness: 'complete', steps: tokens })
}, 240_000)

afterAll(() => {
  killAll()
  workspace.remove()
})

describe('a policy that changes within a request', () => {
  test('stores of each hook what was wanted, and calls it sampled', async () => {
    const generated = await model.generateAround([command('hooks')], tokens, 2, () =>
      put({ stats: ['final_logits', 'q'], tensors: ['q'], layers: ['q[::10]'] }),
    )
    const prompt = same(generated)
    expect(await storedOf('hooks')).toMatchObject({ completeness: 'sampled', steps: tokens })
    const ranges = await rangesOf('hooks')
    const before = [`0:${prompt}`, `${prompt}:${prompt + 1}`]
    const after = [2, 3, 4].map((step) => `${prompt + step - 1}:${prompt + step}`)
    expect(ranges['resid_pre.7']).toEqual(before)
    expect(ranges['q.7']).toEqual(before)
    expect(ranges['q.10']).toEqual([...before, ...after])
    // Measured on, and stored no more.
    expect(ranges['final_logits.-1']).toHaveLength(2)
    await put({})
    const page = await (await fetch(`${exporter.url}/metrics`)).text()
    expect(page).toMatch(/^ring2_policy_changes_total(\{[^}]*\})? 2\b/m)
  })

  test('to nothing and back says which tokens are kept', async () => {
    const generated = await model.generateAround([command('off')], tokens, 1, () =>
      put({ stats: [], tensors: [] }),
    )
    same(generated)
    await put({})
    const { completeness, steps } = await storedOf('off')
    expect({ completeness, steps }).toEqual({ completeness: 'sampled', steps: 1 })
    const on = await model.generateAround([command('whole')], tokens, 2, () => put({}))
    same(on)
    expect(await storedOf('whole')).toMatchObject({ completeness: 'complete', steps: tokens })
  })
})

test('while nothing is wanted the ring gets nothing, and the model says the same', async () => {
  await put({ request_share: 0 })
  const before = await model.counters()
  same(await model.generate([command('nothing')], tokens))
  same(await model.generate([command('none-1'), command('none-2')], tokens))
  expect(await model.counters()).toEqual(before)
  await put({})
})

test('requests that are not wanted appear nowhere, also beside one that is', async () => {
  await put({ sampled_only: true })
  const wanted = command('sampled', { traceparent: sampled })
  same(await model.generate([command('other-1'), wanted, command('other-2')], tokens))
  expect(await storedOf('sampled')).toMatchObject({ completeness: 'complete', steps: tokens })
  const listed = await get(`${exporter.url}/v1/traces?limit=100`)
  const { traces } = listed.json<{ traces: { request_id: string }[] }>()
  expect(traces.filter(({ request_id: id }) => /^(other|none|nothing)/.test(id))).toEqual([])
  const rows = await queryDuckDb(
    `SELECT DISTINCT request_id FROM ${tensorsOf(workspace.store)} WHERE request_id LIKE 'other%'`,
  )
  expect(rows).toEqual([])
  await put({})
})

test('every other generated token and no prompt', async () => {
  await put({ prefill: false, decode_every: 2 })
  const prompt = same(await model.generate([command('tokens')], tokens))
  const kept = [1, 2, 3, 4]
    .map((step) => prompt + step - 1)
    .filter((position) => position % 2 === 0)
    .map((position) => `${position}:${position + 1}`)
  expect(await storedOf('tokens')).toMatchObject({ completeness: 'sampled', steps: kept.length })
  expect((await rangesOf('tokens'))['resid_pre.0']).toEqual(kept)
  await put({})
})

describe('ring2-exporter policy', () => {
  test('gets what it can set', async () => {
    const ask = (...words: string[]) =>
      runExporter(workspace, ['policy', ...words, '--url', exporter.url], settings)
    const file = join(workspace.root, 'policy.yaml')
    writeFileSync(file, 'tensors: [resid_pre]\nlayers: ["resid_pre[0:3]"]\ndecode_every: 3\n')
    const set = ask('set', file)
    expect(set).toMatchObject({ code: 0 })
    expect(parse(set.stdout)).toMatchObject({ tensors: ['resid_pre'], decode_every: 3 })
    const got = ask('get', '--json')
    expect(JSON.parse(got.stdout)).toEqual({ source: 'set', policy: parse(set.stdout) })
    expect(exporter.logs().some(({ msg }) => msg === 'the capture policy has changed')).toBe(true)
  })

  test('refuses what is no policy before it asks anybody, and names a service that is not there', () => {
    const file = join(workspace.root, 'wrong.yaml')
    writeFileSync(file, 'layers: ["resid_pre[-1]"]\n')
    const wrong = runExporter(workspace, ['policy', 'set', file, '--url', 'http://127.0.0.1:9'])
    expect(wrong.code).not.toBe(0)
    expect(wrong.stderr).toContain('RING2_E_POLICY')
    const absent = runExporter(workspace, ['policy', 'get', '--url', 'http://127.0.0.1:9'])
    expect(absent.code).not.toBe(0)
    expect(absent.stderr).toContain('RING2_E_UNREACHABLE')
    expect(absent.stderr).toContain('--url')
    const nowhere = join(workspace.root, 'nowhere.yaml')
    const unread = runExporter(workspace, ['policy', 'set', nowhere])
    expect(unread.code).not.toBe(0)
    expect(unread.stderr).toContain('RING2_E_SYSTEM')
    expect(unread.stderr).toContain(nowhere)
  })
})

test('a policy that is kept outlives the exporter, and the producer goes by it meanwhile', async () => {
  await put({ layers: ['resid_pre[0]', 'q[0]'] })
  expect(await exporter.stop()).toBe(0)
  same(await model.generate([command('alone')], tokens))
  exporter = await startExporter(workspace, settings)
  expect((await get(`${exporter.url}/v1/policy`)).json()).toMatchObject({
    source: 'kept',
    policy: { layers: ['resid_pre[0]', 'q[0]'] },
  })
  expect(await storedOf('alone')).toMatchObject({ completeness: 'complete', steps: tokens })
  const names = Object.keys(await rangesOf('alone'))
  expect(names).toEqual(['final_logits.-1', 'q.0', 'resid_pre.0'])
}, 60_000)

test('control words of noise change nothing for the model, and the exporter mends them', async () => {
  await exporter.stop('SIGKILL')
  const [sequenceAt, flagsAt] = [3072, 3076]
  const file = openSync(model.segment, 'r+')
  writeSync(file, Buffer.from([0xff, 0xff, 0xff, 0x7f]), 0, 4, sequenceAt)
  writeSync(file, Buffer.alloc(32, 0xa5), 0, 32, flagsAt)
  same(await model.generate([command('noise')], tokens))
  exporter = await startExporter(workspace, settings)
  await put({})
  const sequence = Buffer.alloc(4)
  readSync(file, sequence, 0, 4, sequenceAt)
  closeSync(file)
  expect(sequence.readUInt32LE() % 2).toBe(0)
  same(await model.generate([command('mended')], tokens))
  expect(await storedOf('mended')).toMatchObject({ completeness: 'complete', steps: tokens })
}, 60_000)
