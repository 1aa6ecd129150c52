/** The house rules that a machine can hold: arrows, doors, sizes, pins, docs that name every code. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const isGenerated = (path: string): boolean =>
  /\.gen\.|lock|requirements\.txt$|ring2_(errors|hooks)\.h$|_catalogue\.py$/.test(path)
const source = (folder: string): string[] =>
  files.filter((path) => path.startsWith(folder) && path.endsWith('.ts') && !isGenerated(path))

interface Import {
  readonly from: string
  /** Path in the repository, or the name of a package. */
  readonly to: string
}

function importsOf(path: string): Import[] {
  const specifiers = [
    ...read(path).matchAll(/^(?:import|export)\s[^'"]*?from\s+'([^']+)'/gms),
    ...read(path).matchAll(/^import\s+'([^']+)'/gm),
    ...read(path).matchAll(/import\('([^']+)'\)/g),
  ].map((match) => match[1] as string)
  return specifiers.map((specifier) => ({
    from: path,
    to: specifier.startsWith('.')
      ? relative(root, join(root, dirname(path), specifier))
      : specifier,
  }))
}

describe('Imports', () => {
  test('go one way: native ← collector ← exporter', () => {
    const upward = source('collector/')
      .flatMap(importsOf)
      .filter(({ to }) => /^(exporter|test|bench)\//.test(to))
    expect(upward).toEqual([])
  })

  test('of dashboards reach the registry of signals, and nothing reaches dashboards', () => {
    const allowed = new Set([
      'collector/records.ts',
      'exporter/telemetry/generated-files.ts',
      'exporter/telemetry/metric-definition.ts',
      'exporter/telemetry/prometheus-names.ts',
      'exporter/telemetry/registry.ts',
      'exporter/telemetry/thresholds.ts',
    ])
    const outside = source('dashboards/')
      .flatMap(importsOf)
      .filter(({ to }) => /^(collector|exporter|test|bench|native)\//.test(to) && !allowed.has(to))
    const inward = [...source('collector/'), ...source('exporter/')]
      .flatMap(importsOf)
      .filter(({ to }) => to.startsWith('dashboards/'))
    expect([...outside, ...inward]).toEqual([])
  })

  test('of the exporter reach the collector by its public names', () => {
    const allowed = new Set([
      'collector/index.ts',
      'collector/records.ts',
      'collector/statistic-groups.ts',
      'collector/verdict-rules.ts',
      'collector/errors.ts',
      'collector/contexts.ts',
      'collector/ids.ts',
      'collector/errors.gen.ts',
      'collector/hooks.gen.ts',
      'collector/layout.gen.ts',
      'collector/limits.ts',
    ])
    const inside = source('exporter/')
      .flatMap(importsOf)
      .filter(({ to }) => to.startsWith('collector/') && !allowed.has(to))
    expect(inside).toEqual([])
  })

  test.each([
    ['koffi', ['collector/native.ts']],
    ['@grafana/', ['dashboards/']],
    ['@prometheus-io/', ['dashboards/expression.ts']],
    ['@opentelemetry/', ['exporter/telemetry/']],
    ['hyparquet', ['exporter/parquet/']],
    ['apache-arrow', ['exporter/tensors/arrow.ts']],
    ['fastify', ['exporter/api/']],
    ['@fastify/', ['exporter/api/']],
    ['@aws-sdk/', ['exporter/store/s3']],
    ['node:sqlite', ['exporter/catalog/']],
    ['pino', ['exporter/logging.ts', 'exporter/api/']],
    ['commander', ['exporter/main.ts', 'exporter/cli/']],
  ])('of %s pass through one door', (name, doors) => {
    const others = [...source('collector/'), ...source('exporter/'), ...source('dashboards/')]
      .flatMap(importsOf)
      .filter(({ to }) => to === name || (to.startsWith(name) && /[/-]/.test(to)))
      .filter(({ from }) => !doors.some((door) => from.startsWith(door)))
    expect(others).toEqual([])
  })

  test('leave no source file unused', () => {
    const entries = new Set([
      'exporter/main.ts',
      'exporter/catalog/compact-worker.ts',
      'exporter/pipeline/drain-worker.ts',
      'exporter/telemetry/generate.ts',
      // By scripts/stack.ts.
      'exporter/demo/stack/binaries.ts',
      'exporter/demo/stack/servers.ts',
    ])
    const used = new Set(
      [...source('collector/'), ...source('exporter/')].flatMap(importsOf).map(({ to }) => to),
    )
    const unused = [...source('collector/'), ...source('exporter/')].filter(
      (path) => !used.has(path) && !entries.has(path),
    )
    expect(unused).toEqual([])
  })
})

describe('Files', () => {
  const code = files.filter((path) => /\.(ts|mjs|js|cc|h|c|py)$/.test(path) && !isGenerated(path))

  test('hold one concern: at most 450 lines, tests 600', () => {
    const long = code
      .map((path) => ({ path, lines: read(path).split('\n').length }))
      .filter(({ path, lines }) => lines > (/(^|\/)test\//.test(path) ? 600 : 450))
    expect(long).toEqual([])
  })

  test('have lines of at most 120 columns, but for long texts', () => {
    const longText = /['"`].{60,}['"`]/
    const wide = code.flatMap((path) =>
      read(path)
        .split('\n')
        .flatMap((line, index) =>
          line.length > 120 && !longText.test(line) ? [`${path}:${index + 1}`] : [],
        ),
    )
    expect(wide).toEqual([])
  })

  test('open with what they are', () => {
    const silent = code.filter((path) => {
      // What a test is, its names say.
      if (/(^|\/)test\//.test(path)) return false
      const start = read(path).replace(/^#!.*\n/, '')
      return !/^(\/\*|\/\/|#|""")/.test(start) && !path.endsWith('__init__.py')
    })
    expect(silent).toEqual([])
  })

  test('hold no unfinished work', () => {
    const marks =
      /\b(TODO|FIXME|XXX|HACK)\b|@ts-ignore|@ts-expect-error|\bas any\b|\b(test|it|describe|pytest)\.(only|skip)\(/
    const unfinished = code.filter((path) => path !== 'test/tidy.test.ts' && marks.test(read(path)))
    expect(unfinished).toEqual([])
  })
})

describe('Facts', () => {
  test('of dependencies are exact versions', () => {
    const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>
    const versions = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((group) =>
      Object.entries(manifest[group] ?? {}),
    )
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([])
  })

  test('of errors: every code that is raised is in the table', () => {
    const table = JSON.parse(read('native/errors.json')) as { errors: { name: string }[] }
    const known = new Set(table.errors.map((error) => error.name))
    const raised = files
      .filter((path) => /\.(ts|cc|h|c|py)$/.test(path))
      .flatMap((path) => [...read(path).matchAll(/\bRING2_E_[A-Z_]*[A-Z]\b/g)].map((m) => m[0]))
    expect([...new Set(raised)].filter((code) => !known.has(code))).toEqual([])
  })
})
