/**
 * The demo's parts as processes: a receiver of OTLP, the exporter, the chat service. Each is started
 * with settings of its own and added to `processes`, in the order in which they are to be ended last.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { Ring2Error } from '../errors.ts'
import { type DemoProcess, startProcess } from './processes.ts'

export interface Parts {
  readonly processes: DemoProcess[]
  /** Logs and settings; whoever makes it removes it. */
  readonly folder: string
  /** Name of the shared-memory segment. */
  readonly segment: string
}

const root = join(import.meta.dirname, '..', '..')

/** Where the chat service saves what the model itself held; it can reveal prompts. */
export function heldFolder(parts: Parts): string {
  return join(parts.folder, 'held')
}

/**
 * Ends what runs: the model first, so that the exporter drains it to the end. Says which process did not
 * end in order, and then returns false.
 */
export async function stopParts(parts: Parts, say: (text: string) => void): Promise<boolean> {
  let orderly = true
  for (const one of parts.processes.splice(0).reverse()) {
    say(`stopping the ${one.name} …`)
    const code = await one.stop()
    if (code === 0) continue
    orderly = false
    const how = code === null ? 'was killed' : `ended with exit code ${code}`
    say(`the ${one.name} ${how}; its log: ${one.log}`)
  }
  return orderly
}

/** A receiver that writes what it gets into a file, for a demo without a Collector. */
export async function startReceiver(parts: Parts): Promise<{ endpoint: string; file: string }> {
  const file = join(parts.folder, 'otlp.jsonl')
  writeFileSync(file, '')
  const { process: receiver, ready } = await startProcess({
    name: 'receiver',
    program: python(),
    arguments: [join(root, 'examples', 'otlp-receiver', 'otlp_receiver.py'), '--port', '0', file],
    environment: {},
    logs: parts.folder,
    readyOn: 'stdout',
    ready: (line) => /"port": (\d+)/.exec(line)?.[1],
    endBy: 'stdin',
  })
  parts.processes.push(receiver)
  return { endpoint: `http://127.0.0.1:${ready}`, file }
}

export interface ExporterSettings {
  /** Directory or s3:// URL. */
  readonly store: string
  /** OTLP over gRPC. */
  readonly endpoint: string
  /** Of the API; a free one when left out. */
  readonly port?: number
  /** Seconds between two exports of metrics; the exporter's own when left out. */
  readonly metricsSeconds?: number
}

/** Gives the address of its API. */
export async function startExporter(parts: Parts, settings: ExporterSettings): Promise<string> {
  const config = join(parts.folder, 'ring2.yaml')
  const { store, endpoint, port = 0, metricsSeconds } = settings
  const document = {
    store: { url: store, flush_seconds: 0.5 },
    segments: { names: [parts.segment] },
    api: { port },
    telemetry: {
      otlp: 'on',
      endpoint,
      ...(metricsSeconds === undefined ? {} : { metrics_interval_seconds: metricsSeconds }),
    },
    log: { format: 'json' },
  }
  writeFileSync(config, stringify(document))
  const { process: exporter, ready } = await startProcess({
    name: 'exporter',
    program: join(root, 'bin', 'ring2-exporter'),
    arguments: ['run', '--config', config],
    environment: {},
    logs: parts.folder,
    readyOn: 'stderr',
    ready: readyUrl,
    endBy: 'SIGTERM',
  })
  parts.processes.push(exporter)
  return ready
}

function readyUrl(line: string): string | undefined {
  if (!line.startsWith('{')) return undefined
  const { msg, url } = JSON.parse(line) as { msg?: string; url?: string }
  return msg === 'ready' ? url : undefined
}

export interface ServiceSettings {
  /** OTLP over gRPC. */
  readonly endpoint: string
  /** Whether it can be broken on purpose. */
  readonly allowFaults?: boolean
}

/** Gives the address of the chat service. */
export async function startService(parts: Parts, settings: ServiceSettings): Promise<string> {
  mkdirSync(heldFolder(parts), { recursive: true })
  const { process: service, ready } = await startProcess({
    name: 'chat-service',
    program: python(),
    arguments: [
      join(root, 'examples', 'chat-service', 'service.py'),
      ...['--model', modelFolder(), '--segment', parts.segment],
      ...['--keep-tensors', heldFolder(parts)],
      ...(settings.allowFaults === true ? ['--allow-faults'] : []),
    ],
    environment: {
      OTEL_EXPORTER_OTLP_ENDPOINT: settings.endpoint,
      OTEL_BSP_SCHEDULE_DELAY: '500',
      HF_HUB_OFFLINE: '1',
      // With more threads than free cores, decoding on a busy machine is several times slower.
      OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? '1',
    },
    logs: parts.folder,
    readyOn: 'stdout',
    ready: (line) => /"url": "([^"]+)"/.exec(line)?.[1],
    endBy: 'SIGTERM',
  })
  parts.processes.push(service)
  return ready
}

export function python(): string {
  const program = process.env.RING2_PYTHON
  if (program !== undefined && program !== '') return program
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: 'RING2_PYTHON to name a Python that has torch, transformers and ring2',
    actual: 'not set',
    action: 'Run `npm run demo` in the repository: it makes such an environment and sets it.',
  })
}

export function modelFolder(): string {
  const folder = process.env.RING2_MODEL_DIR
  if (folder !== undefined && folder !== '') return folder
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: 'RING2_MODEL_DIR to name a folder with a model that Transformers loads',
    actual: 'not set',
    action: 'Run `npm run demo` in the repository: it converts real weights once and sets it.',
  })
}
