/** The command line as a user types it: outputs, JSON documents, exit codes, and errors that help. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { deriveTraceId } from '../../collector/ids.ts'
import { float32, openProducer, poke, type TestProducer } from '../helpers/producer.ts'
import {
  beginRequest,
  endRequest,
  stepValues,
  writeRequest,
  writeStep,
} from '../helpers/requests.ts'
import {
  createWorkspace,
  expectError,
  exporterEnvironment,
  type Finished,
  get,
  killAll,
  repository,
  runExporter,
  type Settings,
  startExporter,
} from './processes.ts'

const workspace = createWorkspace()
const trace = deriveTraceId('request-1')
const openTrace = deriveTraceId('request-2')
let live: TestProducer

const run = (words: readonly string[], settings: Settings = {}): Finished =>
  runExporter(workspace, words, settings)

const tensorsStored = 3 * 2 + 2 + 1 + 2

/** Of consumer_pid in the header of a segment. */
const consumerPidOffset = 1096

beforeAll(async () => {
  const exporter = await startExporter(workspace)
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  producer.model()
  writeRequest(producer, 1, 3, 3)
  // Of its second step, request 2 lost the tensor of layer 0.
  beginRequest(producer, 2)
  writeStep(producer, 2, 0, 2)
  producer.step({ step: 2001, columns: 1, rows: [{ key: 2, start: 2, end: 3, phase: 'decode' }] })
  const tensor = { hook: 'resid_pre', layer: 1, step: 2001, dims: [1, 1, 4] }
  producer.tensor(tensor, float32(stepValues(2, 1, 1, 1)))
  producer.requestEnd({ key: 2, steps: 2, tokens: 3, prompt_tokens: 2, outcome: 'ok' })
  // Request 3 has values that are no numbers.
  beginRequest(producer, 3)
  producer.step({ step: 3000, columns: 1, rows: [{ key: 3, start: 0, end: 1, phase: 'prefill' }] })
  for (const layer of [0, 1]) {
    const broken = { hook: 'resid_pre', layer, step: 3000, dims: [1, 1, 4] }
    producer.tensor(broken, float32([Number.NaN, 1, 2, 3]))
  }
  endRequest(producer, 3, 1, 1)
  producer.close()
  await vi.waitUntil(
    async () => {
      const { traces } = (await get(`${exporter.url}/v1/traces`)).json<{ traces: unknown[] }>()
      return traces.length === 3 && !existsSync(producer.path)
    },
    { timeout: 30_000, interval: 100 },
  )
  expect(await exporter.stop()).toBe(0)
  live = openProducer({ directory: workspace.segments, name: 'live', payloadBytes: 65_536 })
  live.model()
}, 120_000)

afterAll(() => {
  killAll()
  live?.close()
  workspace.remove()
})

/** A command whose output goes to another; its exit code is the last line on standard error. */
function pipe(words: readonly string[], reader: string): Finished {
  const line = `{ "$0" "$@"; echo $? >&2; } | ${reader}`
  const command = [process.execPath, join(repository, 'bin/ring2-exporter.js'), ...words]
  const done = spawnSync('sh', ['-c', line, ...command], {
    env: exporterEnvironment(workspace, {}),
    cwd: workspace.root,
    encoding: 'utf8',
  })
  return { code: done.status, stdout: done.stdout, stderr: done.stderr }
}

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
    const done = pipe(['rings', '--watch'], 'head -n 2')
    expect(done.stdout).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z\nSEGMENT +PRODUCER/)
    expect(done.stderr).toBe('0\n')
  })
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

describe('fetch', () => {
  test('writes one tensor to a file, and to standard output the same', () => {
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1']
    const done = run([...words, '-o', 'one.npy', '--json'])
    expect(done).toMatchObject({ code: 0, stderr: '' })
    expect(JSON.parse(done.stdout)).toEqual({
      tensors: [
        {
          hook: 'resid_pre',
          layer: 1,
          request_id: 'request-1',
          dtype: 'float32',
          shape: [5, 4],
          tokens: [[0, 5]],
          complete: 'complete',
          bytes: 80,
          file: 'one.npy',
        },
      ],
    })
    const file = readFileSync(join(workspace.root, 'one.npy'))
    const values = [0, 1, 2].flatMap((step) => stepValues(1, 1, step, step === 0 ? 3 : 1))
    expect(file.subarray(-80)).toEqual(Buffer.from(float32(values)))
    const piped = run([...words, '-o', '-', '--format', 'json'])
    expect(JSON.parse(piped.stdout)).toMatchObject({ shape: [5, 4], dtype: 'float32' })
    expect(JSON.parse(piped.stdout).data.flat()).toEqual(values)
  })

  test('writes all of a trace into a folder, one file per request, hook and layer', () => {
    const done = run(['fetch', trace, '-o', 'all', '--format', 'safetensors'])
    expect(done.code).toBe(0)
    const files = readdirSync(join(workspace.root, 'all/request-1'))
    expect(files.sort()).toEqual(['resid_pre.0.safetensors', 'resid_pre.1.safetensors'])
    expect(done.stdout.trimEnd().split('\n')).toHaveLength(2)
  })

  test('names the file of one tensor after its trace, here or in the folder that -o names', () => {
    const name = `${trace.slice(0, 8)}.resid_pre.1.npy`
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1']
    expect(run(words).stdout).toContain(`  ${name}\n`)
    mkdirSync(join(workspace.root, 'folder'))
    expect(run([...words, '-o', 'folder']).stdout).toContain(`  folder/${name}\n`)
    const here = readFileSync(join(workspace.root, name))
    expect(readFileSync(join(workspace.root, 'folder', name))).toEqual(here)
  })

  test('takes the format from the ending of the file', () => {
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1']
    expect(run([...words, '-o', 'h.safetensors']).code).toBe(0)
    const file = readFileSync(join(workspace.root, 'h.safetensors'))
    const header = file.subarray(8, 8 + Number(file.readBigUInt64LE()))
    expect(JSON.parse(header.toString('utf8'))).toHaveProperty(['resid_pre.1', 'dtype'], 'F32')
    const contradiction = run([...words, '--format', 'npy', '-o', 'no.safetensors'])
    expect(expectError(contradiction, 2, 'RING2_E_QUERY')).toContain('--format safetensors')
    expect(existsSync(join(workspace.root, 'no.safetensors'))).toBe(false)
  })

  test('ends in order when nobody reads its output', () => {
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1', '-o', '-']
    expect(pipe(words, 'true').stderr).toMatch(/^resid_pre layer 1 .+\n0\n$/)
  })

  test.each([
    ['/proc/no/such/file.npy', 'ENOENT'],
    ['', 'ENOENT'],
    ['a-file/below.npy', 'ENOTDIR'],
    ['a-file/', 'ENOTDIR'],
  ])('to %j says what the system has against it', (path, errno) => {
    writeFileSync(join(workspace.root, 'a-file'), '')
    const done = run(['fetch', trace, '--hook', 'resid_pre', '--layer', '1', '-o', path])
    const text = expectError(done, 2, 'RING2_E_QUERY')
    expect(text).toContain('a writable path for -o')
    expect(text).toContain(errno)
    expect(text).toContain(path)
  })

  test.each([
    ['--tokens', '40:50', 'got       --tokens 40:50'],
    ['--request', 'nobody', 'a request (--request ID) with this tensor: request-1'],
  ])('speaks of %s as the shell does', (option, value, said) => {
    const done = run(['fetch', trace, '--hook', 'resid_pre', '--layer', '1', option, value])
    expect(done.stderr).toContain(said)
    expect(done.stderr).not.toMatch(/GET|openapi/)
  })

  test('of some tokens gives those', () => {
    const words = ['--hook', 'resid_pre', '--layer', '0', '--tokens', '2:4', '-o', 'part.npy']
    const done = run(['fetch', trace, ...words, '--json'])
    expect(JSON.parse(done.stdout).tensors).toMatchObject([{ shape: [2, 4], tokens: [[2, 4]] }])
  })

  test('exits with 4 when tokens are missing and all were asked for, and still writes the rest', () => {
    const words = ['fetch', openTrace, '--hook', 'resid_pre', '--layer', '0', '-o', 'open.npy']
    const done = run([...words, '--require-complete'])
    expect(done).toMatchObject({ code: 4, stdout: expect.stringContaining('incomplete') })
    expect(existsSync(join(workspace.root, 'open.npy'))).toBe(true)
  })

  test.each<[string, readonly string[], number, string, string]>([
    ['a wrong trace id', ['XYZ'], 2, 'RING2_E_TRACE_ID', 'XYZ'],
    ['a trace id of zeros', ['0'.repeat(32)], 2, 'RING2_E_TRACE_ID', '0000'],
    ['an unknown trace', ['f'.repeat(32)], 3, 'RING2_E_TRACE_UNKNOWN', 'ffff'],
    ['an unknown hook', [trace, '--hook', 'residuals'], 3, 'RING2_E_TENSOR_UNKNOWN', 'residuals'],
    [
      'an alias',
      [trace, '--hook', 'hidden-states'],
      2,
      'RING2_E_QUERY',
      'resid_pre, the hook that',
    ],
    ['what is no hook', [trace, '--hook', 'Resid Pre'], 2, 'RING2_E_QUERY', 'Resid Pre'],
    ['a hook that was not kept', [trace, '--hook', 'q'], 3, 'RING2_E_TENSOR_UNKNOWN', 'q'],
    [
      'a layer that was not kept',
      [trace, '--hook', 'resid_pre', '--layer', '9'],
      3,
      'RING2_E_TENSOR_UNKNOWN',
      '9',
    ],
    ['tokens backwards', [trace, '--tokens', '4:2'], 2, 'RING2_E_QUERY', '4:2'],
    ['tokens that are none', [trace, '--tokens', 'all'], 2, 'RING2_E_QUERY', 'all'],
    ['heads of what has none', [trace, '--heads', '0'], 2, 'RING2_E_QUERY', 'resid_pre'],
    ['an unknown format', [trace, '--format', 'csv'], 2, 'RING2_E_QUERY', 'csv'],
    ['an unknown request', [trace, '--request', 'nobody'], 3, 'RING2_E_TENSOR_UNKNOWN', 'nobody'],
    ['several tensors for one output', [trace, '-o', '-'], 2, 'RING2_E_QUERY', '2 tensors'],
    ['several tensors for one file', [trace, '-o', 'two.npy'], 2, 'RING2_E_QUERY', '2 tensors'],
  ])('with %s says so', (_, words, code, name, named) => {
    const text = expectError(run(['fetch', ...words]), code, name)
    expect(text).toContain(named)
  })

  test('of a store that is not there says where it looked', () => {
    const done = run(['fetch', trace, '--store', join(workspace.root, 'missing')])
    expect(expectError(done, 1, 'RING2_E_STORE')).toContain('missing')
    expect(existsSync(join(workspace.root, 'missing'))).toBe(false)
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
