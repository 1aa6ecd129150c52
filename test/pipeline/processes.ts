/**
 * The real processes of a pipeline: the exporter as users start it, and a model in Python. Each is
 * ended when its test file ends, whatever happened; its last lines are in every error.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'vitest'
import { python } from '../helpers/otlp-receiver.ts'

export { python }

export const repository = join(import.meta.dirname, '../..')
const command = join(repository, 'bin/ring2-exporter.js')

const logLinesKept = 40
const readyMillis = 60_000

export interface Workspace {
  readonly root: string
  /** Of segments; in shared memory where there is some. */
  readonly segments: string
  readonly store: string
  readonly out: string
  remove(): void
}

export function createWorkspace(): Workspace {
  const root = mkdtempSync(join(tmpdir(), 'ring2-pipeline-'))
  const shared = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const segments = mkdtempSync(join(shared, 'ring2-test-'))
  return {
    root,
    segments,
    store: join(root, 'store'),
    out: root,
    remove() {
      rmSync(root, { recursive: true, force: true })
      rmSync(segments, { recursive: true, force: true })
    },
  }
}

export function segmentFiles(workspace: Workspace): string[] {
  return readdirSync(workspace.segments)
}

export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly [field: string]: unknown
}

export interface Exporter {
  readonly url: string
  readonly pid: number
  logs(): LogLine[]
  /** Sends the signal and waits; its exit code, or the signal that ended it. */
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals | null>
}

export type Settings = Readonly<Record<string, string>>

/** Environment of every exporter command of a test: nothing comes from the machine's own. */
export function exporterEnvironment(workspace: Workspace, settings: Settings): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(RING2|OTEL)_/.test(name) || name === 'RING2_LIBRARY',
  )
  return {
    ...Object.fromEntries(own),
    RING2_STORE_URL: workspace.store,
    RING2_STORE_SPOOL: join(workspace.root, 'spool'),
    RING2_SEGMENTS_DIRECTORY: workspace.segments,
    RING2_API_PORT: '0',
    RING2_VERDICT_BASELINES: join(workspace.root, 'baselines.json'),
    // Answers of a few tokens from part of a model have no evidence for the other rules.
    RING2_VERDICT_RULES: 'nonfinite',
    RING2_LOG_FORMAT: 'json',
    RING2_STORE_FLUSH_SECONDS: '0.2',
    RING2_TELEMETRY_METRICS_INTERVAL_SECONDS: '2',
    NO_COLOR: '1',
    ...settings,
  }
}

const running = new Set<ChildProcess>()

/** Ends whatever a failed test has left; for `afterAll`. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
}

function start(program: string, words: readonly string[], environment: NodeJS.ProcessEnv) {
  const child = spawn(program, words, { env: environment, stdio: ['pipe', 'pipe', 'pipe'] })
  running.add(child)
  const exited = once(child, 'exit').then(([code, signal]) => {
    running.delete(child)
    return (code ?? signal) as number | NodeJS.Signals | null
  })
  const lines: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => void lines.push(line))
  const died = exited.then((how) => {
    throw new Error(`${program} ended with ${how}:\n${lines.slice(-logLinesKept).join('\n')}`)
  })
  // Only whoever waits for an answer is told.
  died.catch(() => undefined)
  return { child, exited, died, lines }
}

function parseLog(lines: readonly string[]): LogLine[] {
  return lines.flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as LogLine] : []))
}

async function within<T>(millis: number, promise: Promise<T>, what: string): Promise<T> {
  const late = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error(`${what} took more than ${millis} ms`)), millis).unref()
  })
  return Promise.race([promise, late])
}

export async function startExporter(
  workspace: Workspace,
  settings: Settings = {},
): Promise<Exporter> {
  const environment = exporterEnvironment(workspace, settings)
  const { child, exited, died, lines } = start(process.execPath, [command, 'run'], environment)
  const ready = new Promise<string>((resolve) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      const [log] = parseLog([line])
      if (log?.msg === 'ready') resolve(String(log.url))
    })
  })
  const url = await within(readyMillis, Promise.race([ready, died]), 'the exporter')
  return {
    url,
    pid: child.pid ?? 0,
    logs: () => parseLog(lines),
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      return exited
    },
  }
}

export interface Finished {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs one command of the exporter to its end. */
export function runExporter(
  workspace: Workspace,
  words: readonly string[],
  settings: Settings = {},
): Finished {
  const done = spawnSync(process.execPath, [command, ...words], {
    env: exporterEnvironment(workspace, settings),
    cwd: workspace.root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  return { code: done.status, stdout: done.stdout, stderr: done.stderr }
}

export function runPython(script: string, words: readonly string[]): string {
  const done = spawnSync(python, [join(import.meta.dirname, script), ...words], {
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  })
  if (done.status !== 0) throw new Error(`${script} ended with ${done.status}:\n${done.stderr}`)
  return done.stdout
}

export interface GeneratedRequest {
  readonly id: string
  readonly prompt: number
  readonly tokens: number
  readonly steps: number
  /** The tokens of prompt and answer. */
  readonly ids: readonly number[]
  readonly reference?: string
}

export interface RequestCommand {
  readonly id: string
  readonly text: string
  readonly traceparent?: string
  readonly attributes?: Readonly<Record<string, string | number | boolean>>
}

export interface ModelProcess {
  readonly pid: number
  readonly layers: number
  readonly segment: string
  generate(
    requests: readonly RequestCommand[],
    tokens: number,
    reference?: boolean,
  ): Promise<readonly GeneratedRequest[]>
  /** The same, stopped before a forward pass until something was done. */
  generateAround(
    requests: readonly RequestCommand[],
    tokens: number,
    pause: number,
    doing: () => Promise<unknown>,
  ): Promise<readonly GeneratedRequest[]>
  counters(): Promise<{ readonly records: number; readonly bytes: number }>
  /** Starts what ends in its own SIGKILL, and waits for that. */
  die(facts: Readonly<Record<string, unknown>>): Promise<number | NodeJS.Signals | null>
  detach(): Promise<number | NodeJS.Signals | null>
}

/** The folder of SmolLM2-135M-Instruct: RING2_MODEL_DIR, or where the set-up puts it. */
export function modelFolder(): string {
  const chosen = process.env.RING2_MODEL_DIR
  if (chosen !== undefined && chosen !== '') return chosen
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ring2/models')
  for (const version of existsSync(cache) ? readdirSync(cache).sort().reverse() : []) {
    const folder = join(cache, version, 'SmolLM2-135M-Instruct')
    if (existsSync(join(folder, 'config.json'))) return folder
  }
  throw new Error(`no model in ${cache}: run npm run setup, or set RING2_MODEL_DIR`)
}

export async function startModel(
  workspace: Workspace,
  options: {
    readonly segment: string
    readonly hooks: string
    readonly payloadMb?: number
    /** Sends the texts of token ids too. */
    readonly vocabulary?: boolean
  },
): Promise<ModelProcess> {
  const words = [
    join(import.meta.dirname, 'model_process.py'),
    ...['--model', modelFolder(), '--segments', workspace.segments, '--out', workspace.out],
    ...['--segment', options.segment, '--hooks', options.hooks],
    ...['--payload-mb', String(options.payloadMb ?? 256)],
    ...(options.vocabulary === true ? ['--vocabulary'] : []),
  ]
  const { child, exited, died } = start(python, words, process.env)
  const answers: ((line: string) => void)[] = []
  createInterface({ input: child.stdout }).on('line', (line) => answers.shift()?.(line))
  const next = async <T>(): Promise<T> => {
    const line = new Promise<string>((resolve) => void answers.push(resolve))
    return JSON.parse(await Promise.race([line, died])) as T
  }
  const send = (body: unknown): void => void child.stdin.write(`${JSON.stringify(body)}\n`)
  const { layers, segment } = await next<{ layers: number; segment: string }>()
  return {
    pid: child.pid ?? 0,
    layers,
    segment,
    async generate(requests, tokens, reference = false) {
      send({ do: 'generate', requests, tokens, reference })
      return (await next<{ requests: GeneratedRequest[] }>()).requests
    },
    async generateAround(requests, tokens, pause, doing) {
      send({ do: 'generate', requests, tokens, pause })
      await next<{ paused: number }>()
      await doing()
      send({})
      return (await next<{ requests: GeneratedRequest[] }>()).requests
    },
    async counters() {
      send({ do: 'counters' })
      return next()
    },
    async die(facts) {
      send({ do: 'die', ...facts })
      return exited
    },
    async detach() {
      send({ do: 'detach' })
      child.stdin.end()
      return exited
    },
  }
}

export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  readonly bytes: Uint8Array
  json<T>(): T
}

export async function get(url: string): Promise<ApiAnswer> {
  // A connection that is kept is closed by the server while a test waits in spawnSync.
  const answer = await fetch(url, { headers: { connection: 'close' } })
  const bytes = new Uint8Array(await answer.arrayBuffer())
  return {
    status: answer.status,
    headers: answer.headers,
    bytes,
    json: <T>() => JSON.parse(Buffer.from(bytes).toString('utf8')) as T,
  }
}

export function writeJson(path: string, value: unknown): void {
  writeFileSync(path, JSON.stringify(value))
}

/** An error as people see it: a code, what was expected, what came, what to do; nothing on stdout. */
export function expectError(done: Finished, code: number, name: string): string {
  expect(done).toMatchObject({ code, stdout: '' })
  expect(done.stderr).toMatch(
    new RegExp(`^${name}: .+\\n {2}expected {2}.+\\n {2}got {7}.+\\n {2}do {8}.+\\n$`),
  )
  return done.stderr
}
