/**
 * The whole exporter as users run it, under a load that goes on, with a real Collector: what it costs
 * in processor time and memory, what it loses, and how many spans a second the Collector gets from it.
 * Prints `{"results": […]}`.
 *
 *   node bench/sustained.ts [--seconds N] [--requests N]
 *
 * Memory is what the exporter holds over the segments: resident pages less shared ones, the largest
 * of many readings. The producer runs in this process at a given pace; a ring that is full is an error.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { requireStackBinaries } from '../exporter/demo/stack/binaries.ts'
import { otelConfig } from '../exporter/demo/stack/commands.ts'
import { startStack } from '../exporter/demo/stack/servers.ts'
import { openProducer, type TestProducer } from '../test/helpers/producer.ts'

const root = join(import.meta.dirname, '..')
const MIB = 1024 * 1024
const ringBytes = 256 * MIB
const tickMillis = 20
/** One token of a small model: the residual stream of each layer, and one row of logits. */
const layers = 16
const hidden = 2048
const vocabulary = 32_000
const tokensPerSecond = 200
const tokensPerRequest = 32
/** Clock ticks of /proc/PID/stat in a second; 100 on every Linux of the last decades. */
const ticksPerSecond = 100
const deliveryMillisMax = 120_000

interface Load {
  readonly producer: TestProducer
  requests: number
  step: number
}

function data(elements: number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: elements }, (_, i) => Math.sin(i * i)).buffer)
}

const stream = data(hidden)
const logits = data(vocabulary)

function written(outcome: 'ok' | 'full'): void {
  if (outcome === 'full') throw new Error('the ring is full: the exporter does not keep up')
}

function writeStep(load: Load, key: number, token: number, full: boolean): void {
  const { producer } = load
  const step = load.step++
  const phase = token === 0 ? 'prefill' : 'decode'
  written(producer.step({ step, columns: 1, rows: [{ key, start: token, end: token + 1, phase }] }))
  for (let layer = 0; layer < (full ? layers : 1); layer++) {
    const dims = [1, 1, hidden]
    written(producer.tensor({ hook: 'resid_pre', layer, step, dims }, stream))
  }
  if (!full) return
  written(producer.tensor({ hook: 'final_logits', step, dims: [1, 1, vocabulary] }, logits))
}

function writeRequest(load: Load, tokens: number, full: boolean): void {
  const key = ++load.requests
  written(load.producer.request({ key, request_id: `bench-${key}` }))
  for (let token = 0; token < tokens; token++) writeStep(load, key, token, full)
  written(load.producer.requestEnd({ key, outcome: 'ok', tokens, steps: tokens }))
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

function privateBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kib = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1])
  return (kib('RssAnon') + kib('RssFile')) * 1024
}

async function metric(url: string, name: string): Promise<number> {
  const page = await (await fetch(`${url}/metrics`)).text()
  const lines = page.split('\n').filter((line) => line.startsWith(name))
  return lines.reduce((sum, line) => sum + Number(/ ([0-9.e+]+)/.exec(line)?.[1] ?? 0), 0)
}

async function startExporter(folder: string, segments: string, endpoint: string) {
  const config = join(folder, 'ring2.yaml')
  // The store has benchmarks of its own; here it would fill the disk.
  writeFileSync(config, 'capture:\n  tensors: []\n')
  const program = [join(root, 'exporter/main.ts'), 'run', '--config', config]
  const child: ChildProcess = spawn(process.execPath, program, {
    env: {
      ...process.env,
      RING2_STORE_URL: join(folder, 'store'),
      RING2_SEGMENTS_DIRECTORY: segments,
      RING2_API_PORT: '0',
      RING2_LOG_FORMAT: 'json',
      RING2_TELEMETRY_ENDPOINT: endpoint,
      RING2_TELEMETRY_METRICS_INTERVAL_SECONDS: '5',
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const url = new Promise<string>((resolve, reject) => {
    if (child.stderr === null) return
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (!line.includes('"ready"')) return
      resolve((JSON.parse(line) as { url: string }).url)
    })
    child.once('exit', (code) => reject(new Error(`the exporter ended with ${code}`)))
  })
  return { child, pid: child.pid ?? 0, url: await url }
}

async function main(seconds: number, requests: number) {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-bench-'))
  const segments = mkdtempSync('/dev/shm/ring2-bench-')
  const stack = await startStack({
    binaries: requireStackBinaries(),
    folder: join(folder, 'stack'),
    servers: ['collector'],
    collectorConfig: join(otelConfig, 'collector/minimal.yaml'),
    environment: { OTELCOL_DEBUG_VERBOSITY: 'basic' },
  })
  const { child, pid, url } = await startExporter(folder, segments, stack.urls.otlpGrpc)
  const producer = openProducer({
    directory: segments,
    name: 'bench',
    payloadBytes: ringBytes,
    metaSlots: 2 ** 17,
  })
  const hooks = {
    resid_pre: Array.from({ length: layers }, (_, layer) => layer),
    final_logits: [-1],
  }
  producer.model({ name: 'bench', layers, hidden, vocabulary, hooks })
  const load: Load = { producer, requests: 0, step: 0 }

  const tokenBytes = 4 * (layers * hidden + vocabulary)
  const cpuBefore = cpuSeconds(pid)
  const began = performance.now()
  let resident = 0
  for (let written = 0; performance.now() - began < seconds * 1000; await sleep(tickMillis)) {
    const due = ((performance.now() - began) / 1000) * tokensPerSecond
    for (; written + tokensPerRequest <= due; written += tokensPerRequest) {
      writeRequest(load, tokensPerRequest, true)
    }
    resident = Math.max(resident, privateBytes(pid))
  }
  const elapsed = (performance.now() - began) / 1000
  const cpu = (cpuSeconds(pid) - cpuBefore) / elapsed
  const rate = (load.requests * tokensPerRequest * tokenBytes) / elapsed

  const spansBefore = await metric(url, 'ring2_export_spans_total')
  const spansWanted = 2 * requests
  const burst = performance.now()
  for (let sent = 0; sent < requests; sent++) {
    writeRequest(load, 1, false)
    // The ring is drained by another process, which needs the core now and then.
    if (sent % 256 === 255) await sleep(1)
  }
  let spans = 0
  while (spans < spansWanted && performance.now() - burst < deliveryMillisMax) {
    await sleep(100)
    resident = Math.max(resident, privateBytes(pid))
    spans = (await metric(url, 'ring2_export_spans_total')) - spansBefore
  }
  const spanSeconds = (performance.now() - burst) / 1000
  const lost = await metric(url, 'ring2_capture_lost_records_total')
  const lostSpans = await metric(url, 'ring2_export_lost_spans_total')
  producer.close()
  child.kill('SIGTERM')
  await once(child, 'exit')
  await stack.stop()
  rmSync(segments, { recursive: true })
  rmSync(folder, { recursive: true })
  const figure = (name: string, unit: string, ours: number) => ({ name, unit, ours, ratio: null })
  return [
    figure('tensors measured, sustained', 'MB/s', rate / 1e6),
    figure('exporter, processor time at that rate', 'cores', cpu),
    figure('exporter, memory over the segments, largest', 'MiB', resident / MIB),
    figure('spans taken by the Collector, in a burst', 'spans/s', spans / spanSeconds),
    figure('records and spans lost', 'records', lost + lostSpans),
  ]
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '15' },
    requests: { type: 'string', default: '4000' },
  },
})
const results = await main(Number(values.seconds), Number(values.requests))
process.stdout.write(`${JSON.stringify({ results })}\n`)
