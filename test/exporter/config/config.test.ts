import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Ring2Error } from '../../../collector/errors.ts'
import { configKeys, publishedSchema } from '../../../exporter/config/keys.ts'
import { unknownVariables } from '../../../exporter/config/unknown-variables.ts'
import {
  isLoopback,
  type LoadedConfig,
  loadConfig,
  maskSecrets,
  printConfig,
} from '../../../exporter/config.ts'

const environment = { HOME: '/home/someone' }
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-config-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

function fileOf(content: string): string {
  const file = join(folder, 'ring2.yaml')
  writeFileSync(file, content)
  return file
}

function errorOf(action: () => LoadedConfig): Ring2Error {
  try {
    action()
  } catch (error) {
    if (error instanceof Ring2Error) return error
    throw error
  }
  throw new Error('expected a Ring2Error, and none was thrown')
}

describe('defaults', () => {
  it('is complete without any file or variable', () => {
    const { config, file, sources } = loadConfig({ environment })
    expect(file).toBeNull()
    expect(config.store).toEqual({
      url: '/home/someone/.cache/ring2/store',
      spool: '/home/someone/.cache/ring2/spool',
      flush_seconds: 2,
      flush_bytes: 67_108_864,
      codecs: [],
      spool_bytes_max: 4_294_967_296,
      fsync: false,
    })
    expect(config.api).toEqual({ host: '127.0.0.1', port: 9464 })
    expect(config.capture).toEqual({
      stats: ['all'],
      tensors: ['all'],
      layers: [],
      ...{ request_share: 1, sampled_only: false, prefill: true, decode_every: 1 },
      keep_policy: false,
      redact_hooks: [],
      redact_attributes: [],
      statistics: ['all'],
    })
    expect(config.verdict).toEqual({
      rules: ['all'],
      baselines: '/home/someone/.config/ring2/baselines.json',
    })
    expect(config.telemetry).toEqual({
      otlp: 'auto',
      metrics_interval_seconds: 15,
      tap: false,
      tap_wait_seconds: 10,
    })
    expect(sources.get('store.url')).toBe('default')
  })

  it('keeps the store in XDG_CACHE_HOME where that is set', () => {
    const { config } = loadConfig({ environment: { ...environment, XDG_CACHE_HOME: '/cache' } })
    expect(config.store.url).toBe('/cache/ring2/store')
  })

  it('keeps baselines beside the file, else in XDG_CONFIG_HOME, else where a key says', () => {
    const file = fileOf('')
    const beside = loadConfig({ file, environment }).config.verdict.baselines
    expect(beside).toBe(join(dirname(file), 'baselines.json'))
    const elsewhere = { ...environment, XDG_CONFIG_HOME: '/etc/xdg' }
    expect(loadConfig({ environment: elsewhere }).config.verdict.baselines).toBe(
      '/etc/xdg/ring2/baselines.json',
    )
    const named = { ...environment, RING2_VERDICT_BASELINES: '~/learnt.json' }
    expect(loadConfig({ file, environment: named }).config.verdict.baselines).toBe(
      '/home/someone/learnt.json',
    )
  })

  it('takes an empty file, and sections without keys', () => {
    expect(loadConfig({ file: fileOf(''), environment }).config.api.port).toBe(9464)
    expect(loadConfig({ file: fileOf('api:\nlog:\n'), environment }).config.log.level).toBe('info')
  })
})

describe('unknown variables', () => {
  it('are named beside the one most like them; those of our other programs are known', () => {
    const given = {
      RING2_LIBARY: '/lib.so',
      RING2_SOTRE_URL: '/data',
      RING2_LIBRARY: '/lib.so',
      RING2_STACK_DIR: '/stack',
      RING2_TEST_CALLS: '1',
      RING2_EMPTY: '',
      OTHER_LIBARY: '1',
    }
    expect(unknownVariables({ ...environment, ...given })).toEqual([
      { variable: 'RING2_LIBARY', nearest: 'RING2_LIBRARY' },
      { variable: 'RING2_SOTRE_URL', nearest: 'RING2_STORE_URL' },
    ])
  })
})

describe('what a value should look like', () => {
  it.each([
    ['store:\n  codecs: [resid_pre=zip]\n', /a list of HOOK=CODEC, where HOOK .*\(none of these\)/],
    ['retention:\n  max_age: month\n', /an age such as 12h, 30d or 8w .*\(of another form\)/],
    ['retention:\n  models: [a]\n', /MODEL=keep, such as org\/\*=7d 50GiB as retention.models/],
    ['capture:\n  redact_hooks: token_ids\n', /redact_hooks in .*; write \[token_ids\]/],
  ])('is said of %j', (content, said) => {
    const file = fileOf(content)
    expect(() => loadConfig({ file, environment })).toThrow(said)
  })
})

describe('precedence', () => {
  const content = 'store:\n  flush_seconds: 5\napi:\n  port: 1000\nlog:\n  level: debug\n'

  it('lets the environment win over the file, and the command line over both', () => {
    const file = fileOf(content)
    const { config, sources } = loadConfig({
      file,
      environment: { ...environment, RING2_API_PORT: '2000', RING2_LOG_LEVEL: 'warn' },
      overrides: { 'log.level': 'error', 'log.format': undefined },
    })
    expect(config.store.flush_seconds).toBe(5)
    expect(config.api.port).toBe(2000)
    expect(config.log.level).toBe('error')
    expect(sources.get('store.flush_seconds')).toBe(`${file}:2`)
    expect(sources.get('api.port')).toBe('RING2_API_PORT')
    expect(sources.get('log.level')).toBe('command line')
    expect(sources.get('log.format')).toBe('default')
  })

  it('finds the file by RING2_CONFIG, and prefers the one that is named', () => {
    const file = fileOf(content)
    const named = join(folder, 'other.yaml')
    writeFileSync(named, 'api: {port: 7}\n')
    const withVariable = { ...environment, RING2_CONFIG: file }
    expect(loadConfig({ environment: withVariable }).config.api.port).toBe(1000)
    expect(loadConfig({ file: named, environment: withVariable }).config.api.port).toBe(7)
  })

  it('counts an empty variable as unset', () => {
    expect(loadConfig({ environment: { RING2_API_PORT: '' } }).config.api.port).toBe(9464)
  })
})

describe('environment', () => {
  it('has one variable of its own for every key', () => {
    const variables = configKeys.map((key) => key.variable)
    expect(new Set(variables).size).toBe(configKeys.length)
    expect(variables).toContain('RING2_TELEMETRY_METRICS_INTERVAL_SECONDS')
  })

  it('reads numbers, truth values and lists', () => {
    const { config } = loadConfig({
      environment: {
        ...environment,
        RING2_STORE_FLUSH_SECONDS: '.5',
        RING2_STORE_FSYNC: 'TRUE',
        RING2_CAPTURE_TENSORS: 'resid_pre, pattern',
        RING2_CAPTURE_STATS: 'none',
        RING2_STORE_URL: 's3://bucket/prefix',
        RING2_SEGMENTS_DIRECTORY: 'relative',
      },
    })
    expect(config.store.flush_seconds).toBe(0.5)
    expect(config.store.fsync).toBe(true)
    expect(config.capture).toMatchObject({
      stats: [],
      tensors: ['resid_pre', 'pattern'],
      redact_hooks: [],
      redact_attributes: [],
      statistics: ['all'],
    })
    expect(config.store.url).toBe('s3://bucket/prefix')
    expect(config.segments.directory).toBe(resolve('relative'))
  })

  it.each([
    ['RING2_API_PORT', '80x'],
    ['RING2_API_PORT', '70000'],
    ['RING2_API_PORT', '1.5'],
    ['RING2_STORE_FSYNC', 'yes'],
    ['RING2_LOG_LEVEL', 'loud'],
    ['RING2_CAPTURE_STATS', 'resid_pre,nonsense'],
    ['RING2_TELEMETRY_ENDPOINT', 'localhost:4317'],
  ])('refuses %s=%s, naming the variable and what came', (variable, value) => {
    const error = errorOf(() => loadConfig({ environment: { [variable]: value } }))
    expect(error.code).toBe('RING2_E_CONFIG')
    expect(error.expected).toContain(variable)
    expect(error.actual).toContain(value.split(',').at(-1))
  })

  it('refuses a variable that looks like a key and is none, and leaves others alone', () => {
    const error = errorOf(() => loadConfig({ environment: { RING2_STORE_URI: '/x' } }))
    expect(error.actual).toContain('RING2_STORE_URI')
    expect(error.expected).toContain('RING2_STORE_URL')
    expect(loadConfig({ environment: { RING2_PYTHON: '/x' } }).config.api.port).toBe(9464)
  })
})

describe('file', () => {
  it.each([
    ['an unknown key', 'api:\n  port: 1\n  prot: 2\n', ':3', 'api.prot'],
    ['an unknown section', 'log: {}\napis:\n  port: 1\n', ':3', 'apis'],
    ['a wrong type', 'api:\n  host: 127.0.0.1\n  port: "9464"\n', ':3', '"9464"'],
    ['a value out of range', 'api:\n  port: -1\n', ':2', '-1'],
    ['an unknown hook', 'capture:\n  tensors:\n    - resid_pre\n    - residue\n', ':4', 'residue'],
    ['a list in place of a section', 'api: [1]\n', ':1', '[1]'],
    ['a text in place of everything', 'hello\n', '', 'hello'],
    ['a key that is written twice', 'api:\n  port: 1\n  port: 2\n', ':3', 'unique'],
    ['broken YAML', 'api:\n  port: [1\n', ':', 'YAML'],
  ])('refuses %s, naming the line and what came', (_what, content, line, actual) => {
    const file = fileOf(content)
    const error = errorOf(() => loadConfig({ file, environment }))
    expect(error.code).toBe('RING2_E_CONFIG')
    expect(error.message).toContain(`${file}${line}`)
    expect(error.message).toContain(actual)
  })

  it('names all that is wrong in one error, up to a bound', () => {
    const two = fileOf('api:\n  prot: 2\nlog:\n  level: loud\n')
    const error = errorOf(() => loadConfig({ file: two, environment }))
    for (const named of ['api.prot', `${two}:2`]) expect(error.actual).toContain(named)
    expect(error.actual).toContain('"loud"')
    expect(error.expected).toContain(`log.level in ${two}:4`)
    const many = fileOf(Array.from({ length: 20 }, (_, i) => `s${i}: {}\n`).join(''))
    expect(errorOf(() => loadConfig({ file: many, environment })).actual).toMatch(/; 12 more$/)
  })

  it('refuses a file that does not exist, and one that is far too large', () => {
    const missing = join(folder, 'missing.yaml')
    const error = errorOf(() => loadConfig({ file: missing, environment }))
    expect(error.expected).toContain(missing)
    const large = fileOf(`# ${'x'.repeat(2_000_000)}\n`)
    expect(errorOf(() => loadConfig({ file: large, environment })).actual).toContain('2000003')
  })

  it('refuses a document that multiplies itself by anchors', () => {
    const rows = Array.from(
      { length: 9 },
      (_, i) => `b${i + 1}: &b${i + 1} [*b${i}, *b${i}, *b${i}]`,
    )
    const file = fileOf(`b0: &b0 [x, x, x]\n${rows.join('\n')}\n`)
    expect(errorOf(() => loadConfig({ file, environment })).code).toBe('RING2_E_CONFIG')
  })
})

describe('rules over several keys', () => {
  it('wants a token where the API listens on more than loopback', () => {
    const open = { ...environment, RING2_API_HOST: '0.0.0.0' }
    const error = errorOf(() => loadConfig({ environment: open }))
    expect(error.actual).toContain('0.0.0.0 (RING2_API_HOST)')
    expect(loadConfig({ environment: { ...open, RING2_API_TOKEN: 's' } }).config.api.token).toBe(
      's',
    )
  })

  it('knows loopback addresses', () => {
    expect(['127.0.0.1', '127.8.9.1', '::1', 'localhost'].every(isLoopback)).toBe(true)
    expect(['0.0.0.0', '::', '10.0.0.1', '127.example.org', 'host'].some(isLoopback)).toBe(false)
  })

  it('refuses an override of a key that does not exist', () => {
    const error = errorOf(() => loadConfig({ environment, overrides: { 'store.uri': '/x' } }))
    expect(error.actual).toContain('store.uri')
  })
})

describe('the result', () => {
  it('cannot be changed', () => {
    const { config } = loadConfig({ environment })
    expect(() => Object.assign(config.api, { port: 1 })).toThrow(TypeError)
    expect(() => Object.assign(config, { api: {} })).toThrow(TypeError)
    expect(() => (config.capture.stats as string[]).push('q')).toThrow(TypeError)
  })

  it('is printed with sources, and without secrets', () => {
    const secret = 'do-not-show-me'
    const loaded = loadConfig({ environment: { ...environment, RING2_API_TOKEN: secret } })
    const printed = printConfig(loaded)
    expect(printed).not.toContain(secret)
    expect(printed).toContain('  token: "***"  # RING2_API_TOKEN\n')
    expect(printed).toContain('  names: [ "*" ]  # default\n')
    expect(maskSecrets(loaded.config).api.token).toBe('***')
    expect(loaded.config.api.token).toBe(secret)
  })

  it('prints what, read back, is the same configuration', () => {
    const loaded = loadConfig({ environment: { ...environment, RING2_LOG_LEVEL: 'warn' } })
    const again = loadConfig({ file: fileOf(printConfig(loaded)), environment })
    expect(again.config).toEqual(loaded.config)
  })

  it('never shows a secret in an error', () => {
    const file = fileOf('api:\n  token: [do-not-show-me]\n')
    expect(errorOf(() => loadConfig({ file, environment })).message).not.toContain('do-not-show')
  })
})

describe('the published schema', () => {
  it('is valid JSON Schema with title and description for every key', () => {
    const schema = publishedSchema()
    const ajv = new Ajv2020({ strict: true, allowUnionTypes: true })
    expect(ajv.validateSchema(schema)).toBe(true)
    for (const key of configKeys) {
      expect(key.schema.description.length).toBeGreaterThan(10)
      const optional = /^(api\.(token|public_url)|telemetry\.endpoint|retention\.max_(age|bytes))$/
      expect(key.schema.default === undefined).toBe(optional.test(key.path))
    }
    expect(JSON.stringify(schema)).toContain('"title":"store.url"')
  })
})
