/** Listing from the command line: what is kept, of which trace, and the catalogue made again. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { fillStore, openTrace, tensorsStored, trace } from './cli-store.ts'
import {
  createWorkspace,
  expectError,
  type Finished,
  killAll,
  runExporter,
  type Settings,
} from './processes.ts'

const workspace = createWorkspace()

const run = (words: readonly string[], settings: Settings = {}): Finished =>
  runExporter(workspace, words, settings)

beforeAll(() => fillStore(workspace), 120_000)

afterAll(() => {
  killAll()
  workspace.remove()
})

describe('ls of one trace', () => {
  test('lists its requests and the layers, type and bytes of every hook', () => {
    const done = run(['ls', trace])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    expect(done.stdout).toMatch(/^REQUEST +HOOK +LAYERS +DTYPE +BYTES\n/)
    expect(done.stdout).toMatch(/\nrequest-1 +resid_pre +0-1 +float32 +160 B\n/)
    expect(done.stdout).toMatch(/\n\nrequest-1 {2}ok \(default bounds\)\n$/)
    const document = run(['ls', trace, '--json']).stdout
    expect(document).toMatch(/\n +"[a-z_.0-9]+": \[[^\n]+, [^\n]+\],?\n/)
    expect(JSON.parse(document)).toMatchObject({
      store: workspace.store,
      trace_id: trace,
      requests: [
        {
          request_id: 'request-1',
          details: { completeness: { state: 'complete' }, findings: [] },
          tensors: [
            { hook: 'resid_pre', layer: 0, dtype: 'float32', bytes: 80 },
            { hook: 'resid_pre', layer: 1, dtype: 'float32', bytes: 80 },
          ],
        },
      ],
    })
  })

  test('says what was missing to call a request ok', () => {
    const done = run(['ls', openTrace])
    expect(done.stdout).toMatch(
      /\nrequest-2 {2}unknown \(default bounds\)\n {2}missing: the capture is incomplete\n$/,
    )
  })

  test.each<[string, readonly string[], number, string, string]>([
    ['an unknown trace', ['f'.repeat(32)], 3, 'RING2_E_TRACE_UNKNOWN', 'ffff'],
    ['what is no trace id', ['request-1'], 2, 'RING2_E_TRACE_ID', 'request-1'],
    ['--bad beside it', [trace, '--bad'], 2, 'RING2_E_QUERY', '--bad'],
    ['a filter beside it', [trace, '--model', 'tiny'], 2, 'RING2_E_QUERY', '--model tiny'],
  ])('with %s says so', (_, words, code, name, named) => {
    expect(expectError(run(['ls', ...words]), code, name)).toContain(named)
  })
})

describe('ls', () => {
  test('lists the requests, newest first', () => {
    const done = run(['ls'])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    const lines = done.stdout.trimEnd().split('\n')
    expect(lines).toHaveLength(4)
    expect(lines[0]).toMatch(/^STARTED \(UTC\) +TRACE ID/)
    expect(done.stdout).toMatch(new RegExp(`${trace} +request-1 +tiny +5 +ok +complete`))
    expect(done.stdout).toMatch(new RegExp(`${openTrace} +request-2 +tiny +3 +unknown +incomplete`))
  })

  test('as JSON gives what GET /v1/traces gives, and the store', () => {
    const document = JSON.parse(run(['ls', '--json', '--verdict', 'ok']).stdout)
    expect(document).toMatchObject({
      store: workspace.store,
      traces: [
        {
          trace_id: trace,
          caller_trace_id: null,
          request_id: 'request-1',
          started_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
          completeness: 'complete',
          tensors_stored: 6,
        },
      ],
      next_cursor: null,
    })
  })

  test('--bad lists only requests with a finding', () => {
    const bad = JSON.parse(run(['ls', '--json', '--bad']).stdout)
    expect(bad.traces).toMatchObject([{ request_id: 'request-3', verdict: 'nonfinite' }])
    expect(run(['ls', '--bad']).stdout).toMatch(/^STARTED[^\n]+\n[^\n]+ request-3 [^\n]+\n$/)
    expect(run(['ls', '--bad', '--verdict', 'ok'])).toMatchObject({ code: 2, stdout: '' })
  })

  test('of a model that nobody ran is empty and no error', () => {
    expect(JSON.parse(run(['ls', '--json', '--model', 'none']).stdout)).toEqual({
      store: workspace.store,
      traces: [],
      next_cursor: null,
    })
    expect(run(['ls', '--model', 'none'])).toEqual({
      code: 0,
      stdout: '',
      stderr: `no requests that fit the filters kept in ${workspace.store}\n`,
    })
  })

  test.each([
    [['--since', 'yesterday'], 'yesterday'],
    [['--limit', 'many'], 'many'],
    [['--limit', '-3'], '-3'],
    [['--verdict', 'fine'], 'fine'],
  ])('with %j says what it takes', (words, named) => {
    expect(expectError(run(['ls', ...words]), 2, 'RING2_E_QUERY')).toContain(named)
  })
})

describe('catalog rebuild', () => {
  test('makes the same catalogue again from the Parquet files alone', () => {
    const before = JSON.parse(run(['ls', '--json']).stdout)
    rmSync(join(workspace.store, '.ring2/catalog.sqlite'))
    expectError(run(['ls']), 1, 'RING2_E_STORE')
    const done = run(['catalog', 'rebuild', '--json'])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    expect(JSON.parse(done.stdout)).toMatchObject({ rows: tensorsStored + 3, damaged: [] })
    expect(JSON.parse(run(['ls', '--json']).stdout)).toEqual(before)
  })

  test('passes over a damaged file, names it, and exits with 4', () => {
    const damaged = join(workspace.store, 'tensors/model=x/date=2026-01-01/hour=00/bad.parquet')
    mkdirSync(join(damaged, '..'), { recursive: true })
    writeFileSync(damaged, 'PAR1 and nothing else')
    const done = run(['catalog', 'rebuild'])
    rmSync(damaged)
    expect(done.code).toBe(4)
    expect(done.stderr).toContain('bad.parquet')
    expect(run(['fetch', trace, '--hook', 'resid_pre', '--layer', '0', '-o', 'x.npy']).code).toBe(0)
  })
})
