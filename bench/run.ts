/**
 * `npm run bench`: every benchmark in turn, each against its peers in pairs of one run.
 *
 *   npm run bench                     all, as a table, and written to docs/benchmarks.md
 *   npm run bench -- --only NAME      one of them, as a table, and its section of docs/benchmarks.md
 *   npm run bench -- --json           {machine, results:[…]} on standard output
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const root = join(import.meta.dirname, '..')
const python = process.env.RING2_PYTHON ?? join(root, '.venv', 'bin', 'python')
const model = process.env.RING2_MODEL_DIR ?? ''

interface Ratio {
  readonly vs: string
  readonly median: number
  readonly min: number
  readonly max: number
  readonly pairs: number
}

interface Result {
  readonly name: string
  readonly unit: string
  readonly ours: number
  readonly peers: Readonly<Record<string, number>>
  readonly ratio: Ratio | null
}

interface Benchmark {
  readonly name: string
  /** What it shows, and how the ratio is to be read. */
  readonly about: string
  readonly budget: string
  /** Programs with their arguments, one after the other. */
  readonly programs: readonly (readonly [string, ...string[]])[]
}

const benchmarks: readonly Benchmark[] = [
  {
    name: 'engines',
    about:
      'What capturing costs the engines, in pairs of one run: SmolLM2-135M-Instruct, one thread. Transformers (stock, eager): CPU time of the thread that runs the model; the hidden states of all layers also against what others take for them. A ratio is the time with ring2 over the time of the other: below 1 ring2 is faster. vLLM (eager, float32, in process): CPU time of the engine per token, an engine with the plugin beside one without, and a second one without as the control. llama-server (stock, 4 bit): CPU time of all its threads and its own time, per generated token, beside the same server alone, while an exporter drains; a second server alone is the control, whose ratio says how far the others can be trusted. Then the fixed cost of one small tensor, from C and from PyTorch eager; and rows of 256 KiB through the DMI bridge, against a program that only reads the socket.',
    budget:
      'against no capture at most 1.01 when nothing is wanted, 1.02 for hidden states, 1.05 for everything; 300 ns from C, 3 µs from PyTorch eager',
    programs: [
      [python, 'bench/engines_transformers.py', '--model', model],
      [python, 'bench/vllm_slowdown.py', '--model', model],
      [python, 'bench/llama_slowdown.py'],
      [python, 'bench/fixed_cost.py'],
      [python, 'bench/dmi_bridge.py'],
    ],
  },
  {
    name: 'drain',
    about:
      'Full rings drained, validated, measured (norm statistics) and released by one core, against a plain read of the same payload. A ratio is ours over the plain read, by rate: 1 is the bandwidth of one core.',
    budget: 'at least 0.80',
    programs: [[join(root, 'build', 'native', 'bench', 'drain_bench')]],
  },
  {
    name: 'kernels',
    about:
      'The statistics kernels alone, on memory that is not in any cache, against a plain read of the same bytes. A ratio is ours over the plain read, by rate.',
    budget: 'norms at least 0.80; softmax at least 4 Gelement/s on a core with AVX-512',
    programs: [[join(root, 'build', 'native', 'bench', 'kernels_bench')]],
  },
  {
    name: 'store',
    about:
      'The write path. First full rings drained, measured, checksummed and written as Parquet by the one drain thread, against a plain write of as many bytes to the same directory, and how much anonymous memory that took. Then rows in memory written as one complete Parquet file, against a plain gathered write of the payloads and against other writers, which get the same rows (PyArrow gets them as an Arrow table). A ratio is ours over the other, by rate.',
    budget: 'ring → Parquet at least 2 GB/s, or 0.80 of the plain write',
    programs: [[process.execPath, 'bench/store.ts']],
  },
  {
    name: 'fetch',
    about:
      'One tensor of one trace (64 rows, 4.2 MB) fetched out of sparse stores of 1, 10 and 50 GB in the page cache, by catalogue and two reads, against a DuckDB query of the same rows by trace id and against a scan by parquetjs-lite (of a file of its own of 0.27 GB), the fastest of five on every side. A ratio is our time over the other, below 1 ours is faster; against our own in a store of 1 GB, 1 means that the time does not grow.',
    budget: 'does not grow with the store; at most three requests and the payload',
    programs: [[process.execPath, 'bench/fetch.ts']],
  },
  {
    name: 'codecs',
    about:
      'Codecs of stored tensors on activations of a real model (SmolLM2-135M-Instruct, float32, prefills), one core, against zstd of the raw bytes and against a downcast to float16 with lz4 or zstd. Rates are of the float32 bytes; a ratio is ours over the other, by rate. Then the ratios of sizes for each hook and element type, with those of zstd and of the lossless codec beside them (docs/codecs.md has them with errors).',
    budget: 'float32 at least 3 times smaller within the bound',
    programs: [[process.execPath, 'bench/codecs.ts']],
  },
  {
    name: 'telemetry',
    about:
      'Samples folded into exponential histograms by one core, and whole exports (fold to acknowledged by a receiver in another process), against the JavaScript SDK of OpenTelemetry, in CPU time. Ratios of samples are ours over theirs, by rate; ratios of exports are our CPU time over theirs, below 1 ours is cheaper. Ours crosses a thread and carries exemplars; theirs does neither.',
    budget: 'at least 50 Msample/s; at most 50 ms of CPU for 2000 series',
    programs: [[process.execPath, 'bench/telemetry.ts']],
  },
  {
    name: 'spans',
    about:
      'Spans of requests with their statistics, from summary to a real Collector that answered, one process each. A ratio is ours over the other, by rate; the second figure is how many arrive when more are ended at once than the other has room for.',
    budget: 'none lost',
    programs: [[process.execPath, 'bench/spans.ts']],
  },
  {
    name: 'sustained',
    about:
      'The whole exporter as users run it, for 15 seconds at 200 tokens a second of a model with 16 layers and 32,000 logits, then 4,000 short requests at once, with a real Collector. Nothing to compare with.',
    budget: 'at most 512 MiB over the segments; nothing lost',
    programs: [[process.execPath, 'bench/sustained.ts']],
  },
]

/** One document over several lines, or one on each line. */
function readDocuments(output: string): Record<string, unknown>[] {
  try {
    return [JSON.parse(output)]
  } catch {
    const lines = output.split('\n').filter((line) => line.startsWith('{'))
    return lines.map((line) => JSON.parse(line))
  }
}

/** Programs print one document or one line for each figure; older figures have a list of ratios. */
function parseResults(output: string): Result[] {
  return readDocuments(output)
    .flatMap((document) =>
      Array.isArray(document.results)
        ? (document.results as Record<string, unknown>[])
        : [document],
    )
    .flatMap((result) => {
      const ratios = (result.ratios ?? [result.ratio ?? null]) as (Ratio | null)[]
      const common = {
        name: String(result.name),
        unit: String(result.unit),
        ours: Number(result.ours),
        peers: (result.peers ?? {}) as Record<string, number>,
      }
      return ratios.length === 0
        ? [{ ...common, ratio: null }]
        : ratios.map((ratio) => ({ ...common, ratio }))
    })
}

function runBenchmark(benchmark: Benchmark): Result[] {
  process.stderr.write(`${benchmark.name} …\n`)
  return benchmark.programs.flatMap((program) => runProgram(benchmark.name, program))
}

function runProgram(name: string, [program, ...rest]: readonly [string, ...string[]]): Result[] {
  const { status, stdout, error } = spawnSync(program, rest, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  })
  if (error !== undefined || status !== 0) {
    process.stderr.write(`${name} failed: ${error?.message ?? `status ${status}`}\n`)
    process.exit(1)
  }
  return parseResults(stdout)
}

function describeMachine() {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memory_gib: Math.round(totalmem() / 2 ** 30),
    kernel: readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
    node: process.version,
    date: new Date().toISOString().slice(0, 10),
  }
}

function number(value: number): string {
  if (!Number.isFinite(value)) return '–'
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

function rowsOf(results: readonly Result[]): string[][] {
  return results.map(({ name, unit, ours, peers, ratio }) => [
    name,
    `${number(ours)} ${unit}`,
    ratio === null ? '–' : ratio.vs,
    ratio === null ? '–' : `${number(peers[ratio.vs] ?? Number.NaN)} ${unit}`,
    ratio === null ? '–' : number(ratio.median),
    ratio === null ? '–' : `${number(ratio.min)} … ${number(ratio.max)}`,
    ratio === null ? '–' : String(ratio.pairs),
  ])
}

const head = ['figure', 'ours', 'against', 'theirs', 'ratio', 'spread', 'pairs']

function plainTable(results: readonly Result[]): string {
  const rows = [head, ...rowsOf(results)]
  const widths = head.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

function markdown(
  machine: ReturnType<typeof describeMachine>,
  sections: readonly Section[],
): string {
  const facts = Object.entries(machine).map(([key, value]) => `${key} ${value}`)
  const table = (results: readonly Result[]) =>
    [
      `| ${head.join(' | ')} |`,
      `|${head.map(() => '---').join('|')}|`,
      ...rowsOf(results).map((row) => `| ${row.join(' | ')} |`),
    ].join('\n')
  return [
    '<!-- Generated by `npm run bench`; do not edit. -->',
    '# Benchmarks',
    '',
    'Each figure is measured with its peer in alternating pairs of one run; the ratio is the median of',
    'the pairs, the spread their least and greatest. Absolute values are medians. The machine is shared,',
    'so ratios say more than absolute values. Run `npm run bench` to measure yours. Nothing here has run',
    'on a GPU.',
    '',
    `Machine: ${facts.join(', ')}.`,
    '',
    ...sections.flatMap(({ benchmark, results }) => [
      `## ${benchmark.name}`,
      '',
      benchmark.about,
      '',
      `Budget: ${benchmark.budget}. Command: \`npm run bench -- --only ${benchmark.name}\`.`,
      '',
      table(results),
      '',
    ]),
  ].join('\n')
}

interface Section {
  readonly benchmark: Benchmark
  readonly results: readonly Result[]
}

const { values } = parseArgs({
  options: { only: { type: 'string' }, json: { type: 'boolean', default: false } },
})
const chosen = benchmarks.filter(({ name }) => values.only === undefined || name === values.only)
if (chosen.length === 0) {
  process.stderr.write(
    `no benchmark ${JSON.stringify(values.only)}; expected ${benchmarks.map(({ name }) => name).join(', ')}\n`,
  )
  process.exit(2)
}
const machine = describeMachine()
const sections = chosen.map((benchmark) => ({ benchmark, results: runBenchmark(benchmark) }))
const results = sections.flatMap((section) => section.results)
if (values.json) process.stdout.write(`${JSON.stringify({ machine, results }, null, 2)}\n`)
else process.stdout.write(`${plainTable(results)}\n`)
if (!values.json) {
  const path = join(root, 'docs', 'benchmarks.md')
  const fresh = markdown(machine, sections)
  writeFileSync(
    path,
    values.only === undefined ? fresh : withSections(readFileSync(path, 'utf8'), fresh),
  )
  process.stderr.write('wrote docs/benchmarks.md\n')
}

/** The document with the sections of a newer one in the place of its own; new ones come last. */
function withSections(document: string, newer: string): string {
  const [head = '', ...kept] = document.trimEnd().split(/^(?=## )/m)
  const added = newer
    .trimEnd()
    .split(/^(?=## )/m)
    .slice(1)
  const title = (text: string): string => text.slice(0, text.indexOf('\n'))
  const merged = kept.map((old) => added.find((one) => title(one) === title(old)) ?? old)
  const others = added.filter((one) => !kept.some((old) => title(old) === title(one)))
  const all = [head, ...merged, ...others].map((part) => part.trimEnd())
  return `${all.join('\n\n')}\n`
}
