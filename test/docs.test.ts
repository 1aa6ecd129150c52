/** Documents say what is there: links, commands, flags, snippets, names of files, signals and losses. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { lossReasons } from '../collector/layout.gen.ts'
import { configKeys } from '../exporter/config/keys.ts'
import { loadConfig } from '../exporter/config.ts'
import { metricAttributes } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel, prometheusName } from '../exporter/telemetry/prometheus-names.ts'
import { allMetrics } from '../exporter/telemetry/registry.ts'
import { request, row, summary } from './exporter/tensors/rows.ts'
import { openFixture } from './exporter/tensors/store-fixture.ts'
import { python } from './helpers/otlp-receiver.ts'

const root = join(import.meta.dirname, '..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(root, path)))
const documents = tracked.filter((path) => path.endsWith('.md'))

/** Written by `npm run bench`, so that a document may name it before the first figures are there. */
const written = 'docs/benchmarks.md'
const exists = (path: string): boolean => path === written || existsSync(join(root, path))

interface Block {
  readonly document: string
  readonly language: string
  readonly text: string
}

function blocksOf(document: string): Block[] {
  return [...read(document).matchAll(/^```(\w*)\n([\s\S]*?)^```/gm)].map((match) => ({
    document,
    language: match[1] ?? '',
    text: match[2] ?? '',
  }))
}

const blocks = documents.flatMap(blocksOf)
const withoutBlocks = (document: string): string =>
  read(document).replaceAll(/^```[\s\S]*?^```/gm, '')
const inlineCode = (document: string): string[] =>
  [...withoutBlocks(document).matchAll(/`([^`\n]+)`/g)].map((match) => match[1] ?? '')

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-docs-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What a heading is called in a link. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

function anchorsOf(document: string): string[] {
  return [...withoutBlocks(document).matchAll(/^#+ (.+)$/gm)].map((match) =>
    anchorOf(match[1] ?? ''),
  )
}

describe('Links', () => {
  test('lead to files and headings that exist', () => {
    const broken = documents.flatMap((document) =>
      [...withoutBlocks(document).matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g)]
        .map((match) => match[1] ?? '')
        .filter((target) => !/^https?:/.test(target) && !resolves(document, target))
        .map((target) => `${document}: ${target}`),
    )
    expect(broken).toEqual([])
  })

  function resolves(document: string, target: string): boolean {
    const [path = '', anchor] = target.split('#')
    const file = path === '' ? document : join(dirname(document), path)
    if (!existsSync(join(root, file))) return exists(file)
    return anchor === undefined || anchorsOf(file).includes(anchor)
  }
})

describe('Commands', () => {
  test('of npm are scripts of package.json', () => {
    const scripts = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = documents.flatMap((document) => [
      ...read(document).matchAll(/npm run (?:--silent )?([a-z][a-z:-]*)|npm (test)\b/g),
    ])
    const unknown = named
      .map((match) => match[1] ?? match[2] ?? '')
      .filter((name) => !(name in scripts.scripts))
    expect(named.length).toBeGreaterThan(10)
    expect(unknown).toEqual([])
  })

  test('of ring2-exporter exist, with the flags that are named', () => {
    const mentions = documents.flatMap(mentionsOf)
    expect(mentions.length).toBeGreaterThan(20)
    const wrong = mentions.flatMap(({ document, text }) => {
      const [name = '', ...words] = text.split(/\s+/)
      const known = commands().get(name)
      if (known === undefined) return [`${document}: no command in ${text}`]
      const flags = words.filter((word) => /^--?[a-z]/.test(word))
      const subcommand = name === 'catalog' ? words.slice(0, 1) : []
      return [...flags, ...subcommand]
        .filter((word) => !known.has(word) && !helpOf(name).includes(` ${word}, --`))
        .map((word) => `${document}: no ${word} in ${text}`)
    })
    expect(wrong).toEqual([])
  }, 120_000)

  interface Mention {
    readonly document: string
    /** What follows `ring2-exporter `. */
    readonly text: string
  }

  function mentionsOf(document: string): Mention[] {
    const shell = blocksOf(document).filter(({ language }) => language === 'sh' || language === '')
    const lines = [...shell.flatMap(({ text }) => text.split('\n')), ...inlineCode(document)]
    return lines.flatMap((line) => {
      const command = line.replace(/\s#.*$/, '')
      const own = /(?:^|[ =/])ring2-exporter(?:\.js)? +([a-z].*)$/.exec(command)?.[1]
      // What follows `--` of the npm script is for the command of the same name.
      const script = /npm run demo -- (.+)$/.exec(command)?.[1]
      const text = own ?? (script === undefined ? undefined : `demo ${script}`)
      return text === undefined ? [] : [{ document, text }]
    })
  }

  const run = (...words: string[]): string =>
    execFileSync(process.execPath, ['bin/ring2-exporter.js', ...words], {
      cwd: root,
      encoding: 'utf8',
    })

  let known: ReadonlyMap<string, ReadonlySet<string>> | null = null

  /** Commands with their long flags and subcommands, from the completion script: one process. */
  function commands(): ReadonlyMap<string, ReadonlySet<string>> {
    known ??= new Map(
      [...run('completion', 'bash').matchAll(/^ +([a-z-]+)\) known="([^"]*)"/gm)].map((match) => [
        match[1] ?? '',
        new Set((match[2] ?? '').split(' ')),
      ]),
    )
    return known
  }

  const helps = new Map<string, string>()

  /** For short flags, which completion leaves out. */
  function helpOf(command: string): string {
    const help = helps.get(command) ?? run(command, '--help')
    helps.set(command, help)
    return help
  }
})

describe('Snippets', () => {
  test('of configuration are valid', () => {
    const yaml = blocks.filter(({ language }) => language === 'yaml')
    expect(yaml.length).toBeGreaterThan(1)
    for (const [index, { text }] of yaml.entries()) {
      const file = join(folder, `${index}.yaml`)
      writeFileSync(file, text)
      expect(loadConfig({ file, environment: {} }).file).toBe(file)
    }
  })

  test('of Python compile, and name what the package has', () => {
    const snippets = blocks.filter(({ language }) => language === 'python')
    expect(snippets.length).toBeGreaterThan(5)
    const output = execFileSync(python, [join(root, 'test/helpers/check_snippets.py')], {
      encoding: 'utf8',
      input: JSON.stringify(snippets),
    })
    expect(JSON.parse(output)).toEqual([])
  }, 120_000)

  test('of SQL find the rows of a store', async () => {
    const inShell = blocks.flatMap(({ text }) =>
      [...text.matchAll(/^duckdb -c "([^"]+)"/gm)].map((match) => match[1] ?? ''),
    )
    const queries = [...sql, ...inShell]
    expect(queries.length).toBeGreaterThan(2)
    const store = storeOfDocuments()
    const connection = await (await DuckDBInstance.create()).connect()
    for (const query of queries) {
      const found = await connection.runAndReadAll(query.replaceAll('STORE', store))
      expect(found.getRowObjects(), query).not.toEqual([])
    }
    connection.closeSync()
  })

  const documentedTrace = '0af7651916cd43dd8448eb211c80319c'
  const sql = blocks.filter(({ language }) => language === 'sql').map(({ text }) => text)

  /** A store with the trace that the documents ask for: two requests of two steps and two layers. */
  function storeOfDocuments(): string {
    const store = mkdtempSync(join(folder, 'store-'))
    const fixture = openFixture(store)
    const requests = ['request-1', 'request-2'].map((requestId, index) =>
      request({ key: index + 1, requestId, traceId: documentedTrace }),
    )
    const rows = requests.flatMap((one) =>
      [0, 1].flatMap((layer) =>
        [0, 1].map((step) =>
          row({ request: one, layer, step, tokenStart: step, tokenEnd: step + 1 }),
        ),
      ),
    )
    fixture.flush(
      rows,
      requests.map((one) => summary({ request: one })),
    )
    fixture.sink.close()
    fixture.catalog.close()
    return store
  }

  test('of C compile', () => {
    const snippets = blocks.filter(({ language }) => language === 'c')
    expect(snippets.length).toBeGreaterThan(0)
    for (const [index, { text }] of snippets.entries()) {
      const file = join(folder, `${index}.c`)
      writeFileSync(file, text)
      const flags = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only']
      execFileSync('cc', [...flags, `-I${join(root, 'native/include')}`, file])
    }
  })
})

describe('Names', () => {
  test('of files exist', () => {
    const missing = documents.flatMap((document) =>
      inlineCode(document)
        .filter((code) => /^[\w.-]+(\/[\w.-]+)+\.(ts|mjs|cc|h|c|py|json|md|txt|yaml)$/.test(code))
        .filter((path) => !places(document, path).some(exists))
        .map((path) => `${document}: ${path}`),
    )
    expect(missing).toEqual([])
  })

  /** Documents shorten paths to the folder they speak of. */
  function places(document: string, path: string): string[] {
    const folders = ['.', dirname(document), 'exporter', 'native/hookpoint/python']
    return folders.map((one) => join(one, path))
  }

  test('of variables and constants are used by the code', () => {
    const code = tracked
      .filter((path) => /\.(ts|mjs|js|cc|h|c|py|json|txt|yaml)$/.test(path))
      .map(read)
      .join('\n')
    const known = new Set([
      ...[...code.matchAll(/\bRING2_[A-Z0-9_]*[A-Z0-9]\b/g)].map((match) => match[0]),
      ...configKeys.map((key) => key.variable),
    ])
    const unknown = documents.flatMap((document) =>
      [...read(document).matchAll(/\bRING2_[A-Z0-9_]*[A-Z0-9]\b/g)]
        .map((match) => match[0])
        .filter((name) => !known.has(name))
        .map((name) => `${document}: ${name}`),
    )
    expect(unknown).toEqual([])
  })

  test('of metrics and their labels are those of the registry', () => {
    const metrics = allMetrics.map(prometheusName)
    const parts = metrics.flatMap((name) => [
      name,
      `${name}_bucket`,
      `${name}_sum`,
      `${name}_count`,
    ])
    const labels = Object.keys(metricAttributes).map(openMetricsLabel)
    const known = new Set([...parts, ...labels])
    const named = ['docs/operations.md', 'docs/telemetry.md'].flatMap((document) => [
      ...read(document).matchAll(/\b(?:ring2|gen_ai)_[a-z0-9_]+/g),
    ])
    expect(named.length).toBeGreaterThan(10)
    expect(named.map((match) => match[0]).filter((name) => !known.has(name))).toEqual([])
  })

  test.each(['native/README.md', 'docs/operations.md'])('of all losses are in %s', (document) => {
    const rows = [...read(document).matchAll(/^\| `([a-z_]+)` \|/gm)].map((match) => match[1] ?? '')
    const reasons = [...lossReasons.values()]
    expect(rows.filter((name) => reasons.includes(name)).sort()).toEqual(reasons.sort())
  })
})
