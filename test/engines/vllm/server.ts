/** A real, unmodified vLLM server for tests, with the plugin as it is installed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { modelFolder, python, repository, type Workspace } from '../../pipeline/processes.ts'

const logLinesKept = 40
// A start takes half a minute; on a machine that does much else, its imports take minutes.
export const readyMillis = 600_000
const pollMillis = 300
const lateMillis = 60_000

export interface Vllm {
  readonly url: string
  log(): string
  /** Tells the server alone to stop, as its users do, and waits until it has. */
  stop(): Promise<void>
}

const running = new Set<ChildProcess>()

/** Ends whatever a failed test has left; for `afterAll`. */
export function killServers(): void {
  for (const child of running) killGroup(child)
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // The group has ended.
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port is free')
  return address.port
}

/** The first layers of the real model, in the workspace. */
export function cutModel(workspace: Workspace): string {
  const target = join(workspace.root, 'cut')
  const script = join(repository, 'test/vllm/cut_model.py')
  const done = spawnSync(python, [script, modelFolder(), target], { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`cut_model.py: ${done.stderr}`)
  return target
}

function spawnServer(port: number, model: string, settings: Readonly<Record<string, string>>) {
  const words = [
    ...['-m', 'vllm.entrypoints.openai.api_server'],
    ...['--model', model, '--served-model-name', 'cut'],
    ...['--host', '127.0.0.1', '--port', String(port), '--dtype', 'float32', '--enforce-eager'],
    // Prompts longer than a step's tokens come in chunks.
    ...['--max-model-len', '256', '--max-num-seqs', '8', '--max-num-batched-tokens', '64'],
    ...['--block-size', '32'],
  ]
  const environment = {
    ...process.env,
    VLLM_CPU_KVCACHE_SPACE: '1',
    VLLM_CPU_OMP_THREADS_BIND: 'nobind',
    // What vLLM finds out about a model's class takes it long, and stays the same.
    VLLM_CACHE_ROOT: join(homedir(), '.cache/ring2/vllm'),
    VLLM_NO_USAGE_STATS: '1',
    HF_HUB_OFFLINE: '1',
    OMP_NUM_THREADS: '1',
    ...settings,
  }
  // Its workers are processes of their own, which are ended with the group if they have to be.
  return spawn(python, words, {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
}

/** A server that answers. */
export async function startVllm(
  model: string,
  settings: Readonly<Record<string, string>>,
): Promise<Vllm> {
  const port = await freePort()
  const child = spawnServer(port, model, settings)
  running.add(child)
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => lines.push(line))
  }
  const tail = () => lines.slice(-logLinesKept).join('\n')
  const url = `http://127.0.0.1:${port}`
  const exited = once(child, 'exit')
  const deadline = Date.now() + readyMillis
  for (;;) {
    const healthy = await fetch(`${url}/health`).then(
      (answer) => answer.ok,
      () => false,
    )
    if (healthy) break
    if (child.exitCode !== null) throw new Error(`vLLM ended with ${child.exitCode}:\n${tail()}`)
    if (Date.now() > deadline) {
      throw new Error(`vLLM was not ready after ${readyMillis} ms:\n${tail()}`)
    }
    await sleep(pollMillis)
  }
  const stop = async () => {
    child.kill('SIGTERM')
    const late = setTimeout(() => killGroup(child), lateMillis)
    await exited
    clearTimeout(late)
  }
  return { url, log: () => lines.join('\n'), stop }
}

export interface Completion {
  readonly id: string
  readonly text: string
  readonly logprobs: readonly number[]
}

interface Chunk {
  readonly id: string
  readonly choices: readonly {
    readonly text: string
    readonly logprobs: { readonly token_logprobs: readonly number[] } | null
  }[]
}

function post(
  server: Vllm,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>>,
) {
  return fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({
      ...{ model: 'cut', stream: true, temperature: 0, ignore_eos: true, logprobs: 1 },
      ...body,
    }),
  })
}

/** One greedy streaming completion, read to its end. */
export async function complete(
  server: Vllm,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>>,
): Promise<Completion> {
  const answer = await post(server, body, headers)
  const events = await answer.text()
  if (!answer.ok) throw new Error(`vLLM answered ${answer.status}: ${events}`)
  const chunks = events
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice(6)) as Chunk)
  const choices = chunks.flatMap((chunk) => chunk.choices)
  return {
    id: chunks[0]?.id ?? '',
    text: choices.map(({ text }) => text).join(''),
    logprobs: choices.flatMap(({ logprobs }) => logprobs?.token_logprobs ?? []),
  }
}

/** A client that goes away after the first piece of its answer. */
export async function leaveEarly(
  server: Vllm,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>>,
): Promise<void> {
  const answer = await post(server, body, headers)
  const reader = answer.body?.getReader()
  await reader?.read()
  await reader?.cancel()
}
