/**
 * The demo: a chat service that runs a real model with ring2 attached, the exporter beside it, a client
 * that sends six requests, and a look at what came out. Every number is computed in this run.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { Ring2Error } from '../errors.ts'
import { chat, fetchNpy, readLosses, waitForRequest } from './client.ts'
import { type DemoProcess, startProcess } from './processes.ts'
import { type DemoDocument, describeRequest, type Page } from './report.ts'
import { traceTree } from './trace-tree.ts'
import { verify } from './verify.ts'

export interface DemoOptions {
  /** Directory or s3:// URL of the store. */
  readonly store: string
  /** Whether the processes go on after the report. */
  readonly keep: boolean
  onProgress(text: string): void
}

export interface Demo {
  readonly document: DemoDocument
  readonly page: Page
  /** Ends what still runs; false when a process did not end in order. */
  stop(): Promise<boolean>
}

const root = join(import.meta.dirname, '..', '..')
const verifiedHook = 'resid_pre'

interface Running {
  readonly processes: DemoProcess[]
  readonly folder: string
  readonly segment: string
}

export async function runDemo(options: DemoOptions): Promise<Demo> {
  const began = performance.now()
  const running: Running = {
    processes: [],
    folder: mkdtempSync(join(tmpdir(), 'ring2-demo-')),
    segment: `demo-${process.pid}`,
  }
  const stop = async (failed = false): Promise<boolean> => {
    const codes: (number | null)[] = []
    // The model first, so that the exporter drains it to the end, and the receiver last.
    for (const one of running.processes.splice(0).reverse()) codes.push(await one.stop())
    const orderly = !failed && codes.every((code) => code === 0)
    // Tensors can reveal prompts, so they go; the logs stay when somebody has to read them.
    const gone = orderly ? running.folder : join(running.folder, 'held')
    rmSync(gone, { recursive: true, force: true })
    return orderly
  }
  try {
    const { document, page } = await show(options, running, began)
    if (options.keep) return { document, page, stop }
    options.onProgress('ending the service, then the exporter …')
    const orderly = await stop()
    return { document, page: { ...page, api: null }, stop: async () => orderly }
  } catch (error) {
    await stop(true)
    throw error
  }
}

async function show(options: DemoOptions, running: Running, began: number) {
  const { onProgress } = options
  const held = join(running.folder, 'held')
  mkdirSync(held)
  onProgress('starting the exporter …')
  const receiver = await startReceiver(running)
  const api = await startExporter(options, running, receiver.endpoint)
  onProgress('starting the chat service with SmolLM2-135M-Instruct …')
  const service = await startService(running, receiver.endpoint, held)
  onProgress('sending six chat requests …')
  const answers = await chat(service, (answer) =>
    onProgress(`  ${answer.question}\n    ${answer.text.trim().replaceAll('\n', ' / ')}`),
  )
  onProgress('waiting until the exporter has stored them …')
  const requests = []
  for (const answer of answers) {
    requests.push(describeRequest(answer, await waitForRequest(api, answer)))
  }
  const last = answers.at(-1)
  if (last === undefined) throw new Error('the demo sent no request')
  const layer = Math.floor((requests.at(-1)?.norms.length ?? 0) / 2)
  const verified = verify(
    await fetchNpy(api, last, verifiedHook, layer),
    join(held, `${last.requestId}.${verifiedHook}.${layer}.npy`),
    verifiedHook,
    layer,
    last.requestId,
  )
  const document: DemoDocument = {
    requests,
    store: options.store,
    verified,
    losses: await readLosses(api, running.segment),
    seconds: (performance.now() - began) / 1000,
  }
  const traceLines = receiver.file === null ? [] : await traceTree(receiver.file, last.traceId)
  const fetchCommand = `npx ring2-exporter fetch ${last.traceId} --hook ${verifiedHook} --layer ${layer} --store ${shellWord(options.store)}`
  return { document, page: { document, fetchCommand, traceLines, api } }
}

/** Quoted where a shell would split it or read more into it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

function python(): string {
  const program = process.env.RING2_PYTHON
  if (program !== undefined && program !== '') return program
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: 'RING2_PYTHON to name a Python that has torch, transformers and ring2',
    actual: 'not set',
    action: 'Run `npm run demo` in the repository: it makes such an environment and sets it.',
  })
}

function modelFolder(): string {
  const folder = process.env.RING2_MODEL_DIR
  if (folder !== undefined && folder !== '') return folder
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: 'RING2_MODEL_DIR to name a folder with a model that Transformers loads',
    actual: 'not set',
    action: 'Run `npm run demo` in the repository: it converts real weights once and sets it.',
  })
}

/** A Collector of one's own when one is configured, else a receiver that lives as long as the demo. */
async function startReceiver(running: Running): Promise<{ endpoint: string; file: string | null }> {
  const configured = process.env.OTEL_EXPORTER_OTLP_ENDPOINT
  if (configured !== undefined && configured !== '') return { endpoint: configured, file: null }
  const file = join(running.folder, 'otlp.jsonl')
  writeFileSync(file, '')
  const { process: receiver, ready } = await startProcess({
    name: 'receiver',
    program: python(),
    arguments: [join(root, 'examples', 'otlp-receiver', 'otlp_receiver.py'), '--port', '0', file],
    environment: {},
    logs: running.folder,
    readyOn: 'stdout',
    ready: (line) => /"port": (\d+)/.exec(line)?.[1],
    endBy: 'stdin',
  })
  running.processes.push(receiver)
  return { endpoint: `http://127.0.0.1:${ready}`, file }
}

async function startExporter(
  options: DemoOptions,
  running: Running,
  endpoint: string,
): Promise<string> {
  const config = join(running.folder, 'ring2.yaml')
  const settings = {
    store: { url: options.store, flush_seconds: 0.5 },
    segments: { names: [running.segment] },
    api: { port: 0 },
    telemetry: { otlp: 'on', endpoint, metrics_interval_seconds: 2 },
    log: { format: 'json' },
  }
  writeFileSync(config, stringify(settings))
  const { process: exporter, ready } = await startProcess({
    name: 'exporter',
    program: join(root, 'bin', 'ring2-exporter'),
    arguments: ['run', '--config', config],
    environment: {},
    logs: running.folder,
    readyOn: 'stderr',
    ready: readyUrl,
    endBy: 'SIGTERM',
  })
  running.processes.push(exporter)
  return ready
}

function readyUrl(line: string): string | undefined {
  if (!line.startsWith('{')) return undefined
  const { msg, url } = JSON.parse(line) as { msg?: string; url?: string }
  return msg === 'ready' ? url : undefined
}

async function startService(running: Running, endpoint: string, held: string): Promise<string> {
  const { process: service, ready } = await startProcess({
    name: 'chat-service',
    program: python(),
    arguments: [
      join(root, 'examples', 'chat-service', 'service.py'),
      ...['--model', modelFolder(), '--segment', running.segment, '--keep-tensors', held],
    ],
    environment: {
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
      OTEL_BSP_SCHEDULE_DELAY: '500',
      HF_HUB_OFFLINE: '1',
      // With more threads than free cores, decoding on a busy machine is several times slower.
      OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? '1',
    },
    logs: running.folder,
    readyOn: 'stdout',
    ready: (line) => /"url": "([^"]+)"/.exec(line)?.[1],
    endBy: 'SIGTERM',
  })
  running.processes.push(service)
  return ready
}
