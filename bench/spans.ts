/**
 * Spans of requests, from summary to a real Collector: ours against the batch processor and gRPC
 * exporter that the SDK comes with, in alternating pairs of one run. Prints `{"results": […]}`.
 *
 *   node bench/spans.ts [--requests N] [--pairs N]
 *
 * The stock processor is flushed before its queue is full, or it would drop; the second figure shows
 * what arrives when nobody does. Both sides make the same spans by the same code.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc'
import {
  BatchSpanProcessor,
  type SpanExporter,
  type SpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import { requireStackBinaries } from '../exporter/demo/stack/binaries.ts'
import { otelConfig } from '../exporter/demo/stack/commands.ts'
import { startStack } from '../exporter/demo/stack/servers.ts'
import { createRetryingExporter } from '../exporter/telemetry/retrying-exporter.ts'
import { createSpanExporter } from '../exporter/telemetry/span-exporter.ts'
import { createGivenIds, createSpanSink } from '../exporter/telemetry/span-sink.ts'
import { recordingLogger, requestSummary } from '../test/exporter/telemetry/fixtures.ts'
import { pairedFigures } from './pairs.ts'

const spansPerRequest = 3
/** 1536 spans: within the stock queue of 2048. */
const requestsPerChunk = 512
const deliveryMillisMax = 120_000

interface Side {
  /** Ends the spans of that many requests, and resolves when the Collector has answered for all. */
  send(requests: number, atOnce: boolean): Promise<void>
  close(): Promise<void>
}

let made = 0

function sinkOn(processor: SpanProcessor) {
  const ids = createGivenIds()
  const provider = new TracerProvider({ idGenerator: ids, spanProcessors: [processor] })
  const sink = createSpanSink(provider.getTracer('bench'), ids, (id) => `http://bench/${id}`)
  return (requests: number) => {
    for (let request = 0; request < requests; request++) {
      const traceId = (++made).toString(16).padStart(32, '0')
      sink.finish(requestSummary({}, { traceId, requestId: `bench-${made}` }))
    }
  }
}

function ours(url: string): Side {
  const exporter = createRetryingExporter({
    exporter: createSpanExporter({ url }),
    logger: recordingLogger().logger,
    spansMax: 1e6,
    bytesMax: 1 << 30,
  })
  const finish = sinkOn({
    onStart: () => undefined,
    onEnd: (span) => exporter.enqueue(span),
    forceFlush: async () => undefined,
    shutdown: async () => undefined,
  })
  return {
    async send(requests, atOnce) {
      for (let sent = 0; sent < requests; sent += requestsPerChunk) {
        finish(Math.min(requestsPerChunk, requests - sent))
        if (!atOnce) await nextTurn()
      }
      if (!(await exporter.flush(deliveryMillisMax))) throw new Error('spans are left')
    },
    close: () => exporter.shutdown(1000),
  }
}

function stock(url: string): Side {
  const exporter: SpanExporter = new OTLPTraceExporter({ url })
  const processor = new BatchSpanProcessor({ exporter })
  const finish = sinkOn(processor)
  return {
    async send(requests, atOnce) {
      for (let sent = 0; sent < requests; sent += requestsPerChunk) {
        finish(Math.min(requestsPerChunk, requests - sent))
        if (!atOnce) await processor.forceFlush()
      }
      await processor.forceFlush()
    },
    close: () => processor.shutdown(),
  }
}

async function accepted(metricsUrl: string): Promise<number> {
  const page = await (await fetch(metricsUrl)).text()
  const lines = page.split('\n').filter((line) => /^otelcol_receiver_accepted_spans/.test(line))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** Spans that arrive of those ended in one tick. */
async function arrived(side: Side, requests: number, metricsUrl: string): Promise<number> {
  const before = await accepted(metricsUrl)
  await side.send(requests, true)
  let last = -1
  for (let now = 0; now !== last; await sleep(500)) {
    last = now
    now = (await accepted(metricsUrl)) - before
  }
  return last
}

async function timed(work: Promise<void>): Promise<number> {
  const start = performance.now()
  await work
  return (performance.now() - start) / 1000
}

async function main(requests: number, pairs: number) {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-bench-'))
  const stack = await startStack({
    binaries: requireStackBinaries(),
    folder,
    servers: ['collector'],
    collectorConfig: join(otelConfig, 'collector/minimal.yaml'),
    environment: { OTELCOL_DEBUG_VERBOSITY: 'basic' },
  })
  const sides = { ours: ours(stack.urls.otlpGrpc), stock: stock(stack.urls.otlpGrpc) }
  const rates: { ours: number[]; stock: number[] } = { ours: [], stock: [] }
  const spans = requests * spansPerRequest
  for (let pair = -1; pair < pairs; pair++) {
    const order = pair % 2 === 0 ? (['ours', 'stock'] as const) : (['stock', 'ours'] as const)
    for (const name of order) {
      const seconds = await timed(sides[name].send(requests, false))
      // The first round warms code and connections up.
      if (pair >= 0) rates[name].push(spans / seconds)
    }
  }
  const { collectorMetrics } = stack.urls
  const whole = await arrived(sides.ours, requests, collectorMetrics)
  const partial = await arrived(sides.stock, requests, collectorMetrics)
  await Promise.all([sides.ours.close(), sides.stock.close()])
  await stack.stop()
  rmSync(folder, { recursive: true })
  const peer = 'BatchSpanProcessor and OTLPTraceExporter'
  return [
    {
      name: 'spans taken by a Collector',
      unit: 'spans/s',
      ...pairedFigures(peer, rates.ours, rates.stock),
    },
    {
      name: `of ${spans} spans ended in one tick, taken`,
      unit: 'spans',
      ...pairedFigures(peer, [whole], [partial]),
    },
  ]
}

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '5120' },
    pairs: { type: 'string', default: '9' },
  },
})
const results = await main(Number(values.requests), Number(values.pairs))
process.stdout.write(`${JSON.stringify({ results })}\n`)
