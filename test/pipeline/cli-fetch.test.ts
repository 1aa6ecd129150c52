/** Fetching from the command line: files, standard output, exit codes, and errors that help. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { float32 } from '../helpers/producer.ts'
import { stepValues } from '../helpers/requests.ts'
import { fillStore, openTrace, pipe, trace } from './cli-store.ts'
import {
  createWorkspace,
  expectError,
  exporterEnvironment,
  type Finished,
  killAll,
  repository,
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
          gaps: [],
          bytes: 80,
          file: 'one.npy',
        },
      ],
      redacted: [],
    })
    const file = readFileSync(join(workspace.root, 'one.npy'))
    const values = [0, 1, 2].flatMap((step) => stepValues(1, 1, step, step === 0 ? 3 : 1))
    expect(file.subarray(-80)).toEqual(Buffer.from(float32(values)))
    const piped = run([...words, '-o', '-', '--format', 'json'])
    expect(JSON.parse(piped.stdout)).toMatchObject({ shape: [5, 4], dtype: 'float32' })
    expect(JSON.parse(piped.stdout).data.flat()).toEqual(values)
  })

  test.each(['arrow', 'safetensors'])('writes %s with the elements as npy has them', (format) => {
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1', '--format', format]
    expect(run([...words, '-o', `as.${format}`]).code).toBe(0)
    const file = readFileSync(join(workspace.root, `as.${format}`))
    const values = [0, 1, 2].flatMap((step) => stepValues(1, 1, step, step === 0 ? 3 : 1))
    expect(file.includes(Buffer.from(float32(values)))).toBe(true)
    expect(file.includes(trace)).toBe(true)
    expect(existsSync(join(workspace.root, `as.${format}.partial`))).toBe(false)
  })

  test('of a damaged row writes no file, nor leaves part of one, and exits with 1', () => {
    const values = Buffer.from(float32(stepValues(1, 1, 2, 1)))
    const files = readdirSync(join(workspace.store, 'tensors'), { recursive: true })
    const paths = files.map((name) => join(workspace.store, 'tensors', String(name)))
    const path = paths.find((one) => one.endsWith('.parquet') && readFileSync(one).includes(values))
    const whole = readFileSync(path ?? '')
    const damaged = Buffer.from(whole)
    damaged.writeUInt8((whole[whole.indexOf(values)] ?? 0) ^ 1, whole.indexOf(values))
    writeFileSync(path ?? '', damaged)
    const words = ['fetch', trace, '--hook', 'resid_pre', '--layer', '1', '-o', 'damaged.npy']
    const done = run(words)
    writeFileSync(path ?? '', whole)
    expect(expectError(done, 1, 'RING2_E_CHECKSUM')).toMatch(/row \d+ of tensors\/model_slug=/)
    const left = readdirSync(workspace.root).filter((name) => name.startsWith('damaged'))
    expect(left).toEqual([])
  })

  test('shows progress of several tensors on a terminal, and only there', () => {
    const words = `fetch ${trace} -o shown`
    const line = `${process.execPath} ${join(repository, 'bin/ring2-exporter.js')} ${words}`
    const done = spawnSync('script', ['-qec', line, '/dev/null'], {
      env: exporterEnvironment(workspace, {}),
      cwd: workspace.root,
      encoding: 'utf8',
    })
    expect(done.status).toBe(0)
    expect(done.stdout).toContain('2 of 2 tensors, 0.0 MB')
    expect(run(['fetch', trace, '-o', 'shown']).stderr).toBe('')
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
    expect(pipe(workspace, words, 'true').stderr).toMatch(/^resid_pre layer 1 .+\n0\n$/)
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
