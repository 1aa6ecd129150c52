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
const readyMillis = 400_000
const pollMillis = 300

export interface Vllm {
  readonly url: string
  readonly model: string
  log(): string
  stop(): Promise<void>
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

export async function startVllm(
  workspace: Workspace,
  settings: Readonly<Record<string, string>>,
  words: readonly string[] = [],
): Promise<Vllm> {
  const model = cutModel(workspace)
  const port = await freePort()
  const child: ChildProcess = spawn(
    python,
    [
      ...[
        '-m',
        'vllm.entrypoints.openai.api_server',
        '--model',
        model,
        '--served-model-name',
        'cut',
      ],
      ...['--host', '127.0.0.1', '--port', String(port), '--dtype', 'float32'],
      ...['--max-model-len', '256', '--max-num-seqs', '8', ...words],
    ],
    {
      env: {
        ...process.env,
        VLLM_CPU_KVCACHE_SPACE: '1',
        VLLM_CPU_OMP_THREADS_BIND: 'nobind',
        // What vLLM finds out about a model's class takes it long, and stays the same.
        VLLM_CACHE_ROOT: join(homedir(), '.cache/ring2/vllm'),
        VLLM_NO_USAGE_STATS: '1',
        RING2_VLLM_DIRECTORY: workspace.segments,
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Its workers are processes of their own, which end with the group.
      detached: true,
    },
  )
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream }).on('line', (line) => lines.push(line))
  }
  const tail = () => lines.slice(-logLinesKept).join('\n')
  const url = `http://127.0.0.1:${port}`
  const exited = once(child, 'exit')
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
    process.kill(-child.pid, 'SIGTERM')
    const late = sleep(15_000).then(() => process.kill(-(child.pid as number), 'SIGKILL'))
    await Promise.race([exited, late])
  }
  const deadline = Date.now() + readyMillis
  for (;;) {
    const healthy = await fetch(`${url}/health`).then(
      (answer) => answer.ok,
      () => false,
    )
    if (healthy) break
    if (child.exitCode !== null) throw new Error(`vLLM ended with ${child.exitCode}:\n${tail()}`)
    if (Date.now() > deadline) {
      await stop()
      throw new Error(`vLLM was not ready after ${readyMillis} ms:\n${tail()}`)
    }
    await sleep(pollMillis)
  }
  return { url, model, log: () => lines.join('\n'), stop }
}

/** One streaming completion, read to its end; the token ids and texts of its chunks. */
export async function complete(
  server: Vllm,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>>,
): Promise<{ readonly id: string; readonly text: string }> {
  const answer = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: 'cut', stream: true, temperature: 0, ignore_eos: true, ...body }),
  })
  const events = await answer.text()
  if (!answer.ok) throw new Error(`vLLM answered ${answer.status}: ${events}`)
  const chunks = events
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice(6)) as { id: string; choices: { text: string }[] })
  const text = chunks.map(({ choices }) => choices[0]?.text ?? '').join('')
  return { id: chunks[0]?.id ?? '', text }
}
