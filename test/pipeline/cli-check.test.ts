/** `check` as a user types it: what it prints, and that it refuses whatever `run` would refuse. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import {
  createWorkspace,
  expectError,
  type Finished,
  runExporter,
  type Settings,
} from './processes.ts'

const workspace = createWorkspace()
const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4317' }

const run = (words: readonly string[], settings: Settings = {}): Finished =>
  runExporter(workspace, words, settings)

afterAll(() => workspace.remove())

describe('check', () => {
  test('prints the configuration resolved, with where each key came from, and exits 0', () => {
    const file = join(workspace.root, 'ring2.yaml')
    writeFileSync(file, 'store:\n  flush_seconds: 7\n')
    // The environment wins over the file, so this key must not be in it.
    const done = run(['check', '--config', file], { RING2_STORE_FLUSH_SECONDS: '' })
    expect(done.code).toBe(0)
    expect(done.stdout).toMatch(/flush_seconds: 7 .*ring2\.yaml/)
    expect(done.stdout).toMatch(/RING2_STORE_URL/)
    expect(done.stderr).toMatch(
      /^valid; native library .+, (avx512|avx2|portable) kernels\nOTLP is off: .+\n$/,
    )
  })

  test('as JSON is one document without secrets', () => {
    const done = run(['check', '--json'], { RING2_API_TOKEN: 'very-secret-token' })
    expect(done.code).toBe(0)
    expect(JSON.parse(done.stdout)).toMatchObject({ store: { url: workspace.store } })
    expect(done.stdout).not.toContain('very-secret-token')
  })

  test('names an unknown key of the file, its place and what there is', () => {
    const file = join(workspace.root, 'wrong.yaml')
    writeFileSync(file, 'store:\n  ulr: /tmp\n')
    const text = expectError(run(['check', '--config', file]), 2, 'RING2_E_CONFIG')
    expect(text).toContain('ulr')
    expect(text).toContain('wrong.yaml')
    expect(text).toContain('url')
  })

  test.each([
    [{ RING2_STORE_FLUSH_SECONDS: 'soon' }, 'RING2_STORE_FLUSH_SECONDS'],
    [{ RING2_CAPTURE_TENSORS: 'resid_pre,unknown_hook' }, 'unknown_hook'],
    [{ RING2_API_HOST: '0.0.0.0' }, 'token'],
    [{ RING2_STORE_URL: 'ftp://host/path' }, 'ftp://host/path'],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' }, 'http/protobuf'],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4317' }, 'OTEL_EXPORTER_OTLP_ENDPOINT'],
  ])('refuses %j', (settings, named) => {
    expect(expectError(run(['check'], settings as Settings), 2, 'RING2_E_CONFIG')).toContain(named)
  })

  test('refuses a damaged file of baselines, which would leave no request ok', () => {
    const file = join(workspace.root, 'damaged.json')
    writeFileSync(file, '{')
    const done = run(['check'], { RING2_VERDICT_BASELINES: file })
    expect(expectError(done, 2, 'RING2_E_BASELINE')).toContain(file)
  })

  test('says that a file is not there', () => {
    const done = run(['check', '--config', 'nowhere.yaml'])
    expect(expectError(done, 2, 'RING2_E_CONFIG')).toContain('nowhere.yaml')
  })

  test('says how to get a library that is not there', () => {
    const done = run(['check'], { RING2_LIBRARY: '/no/libring2.so' })
    expect(done.code).toBe(1)
    expect(done.stderr).toContain('RING2_E_NATIVE_LIBRARY')
    expect(done.stderr).toContain('/no/libring2.so')
    expect(done.stderr).toContain('npm run build:native')
  })
})
