/**
 * What metrics cost, against OpenTelemetry's JavaScript SDK in pairs of one run, as CPU time:
 *
 * - folding: samples into exponential histograms, one call of ring2_fold_record for many, against
 *   Histogram.record() with an exponential view, one call for each;
 * - exporting 1, 100 and 2000 series to a receiver on this machine: what the exporter does (read the
 *   fold, cross the thread, lay out, encode, queue, send), against what the SDK does (collect,
 *   serialize, send), which has no exemplars.
 *
 * CPU time is that of this whole process, its other threads included; the receiver's is not.
 * It prints one JSON document {results}; progress goes to standard error.
 */
import { parseArgs } from 'node:util'
import { type Histogram, ValueType } from '@opentelemetry/api'
import {
  convertLegacyOtlpGrpcOptions,
  createOtlpGrpcExportDelegate,
} from '@opentelemetry/otlp-grpc-exporter-base'
import {
  MetricsExporterMetricsHelper,
  ProtobufMetricsSerializer,
} from '@opentelemetry/otlp-transformer'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { AggregationType, MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics'
import { createFoldBook } from '../collector/index.ts'
import { createLogger } from '../exporter/logging.ts'
import { createMetricExporter } from '../exporter/telemetry/metric-exporter.ts'
import { collectFamilies } from '../exporter/telemetry/metric-families.ts'
import { emptySnapshot } from '../exporter/telemetry/metric-points.ts'
import { createMetricSender } from '../exporter/telemetry/metric-sender.ts'
import { startReceiver } from '../test/helpers/otlp-receiver.ts'
import { comparePairs, type Result } from './pairs.ts'

const peer = 'OTel JS SDK'
const seriesCounts = [1, 100, 2000]
/** Samples of one call, as a step of 32 tokens × 32 heads has them. */
const batchSamples = 1024
const samplesPerSeries = 2048
const waitMillis = 60_000
const source = {
  resource: { 'service.name': 'bench' },
  scope: { name: 'bench', version: '0' },
}

/** A fixed sequence, spread over some three decades as norms are. */
function samples(count: number, seed: number): Float64Array {
  let state = seed + 1
  return Float64Array.from({ length: count }, () => {
    state = (state * 48_271) % 2_147_483_647
    return Math.exp((state / 2_147_483_647 - 0.5) * 7)
  })
}

/** CPU seconds of this process. */
async function cpuSeconds(work: () => void | Promise<void>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

/** Gives its points when asked, and nothing by itself. */
class AskedReader extends MetricReader {
  protected override async onShutdown(): Promise<void> {}
  protected override async onForceFlush(): Promise<void> {}
}

function sdk(series: number): { histogram: Histogram; reader: AskedReader } {
  const reader = new AskedReader()
  const provider = new MeterProvider({
    resource: resourceFromAttributes(source.resource),
    readers: [reader],
    views: [
      {
        instrumentName: '*',
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
        aggregationCardinalityLimit: series + 2,
      },
    ],
  })
  const options = { unit: '1', valueType: ValueType.DOUBLE }
  return { reader, histogram: provider.getMeter('bench').createHistogram('l2_norm', options) }
}

function attributesOf(series: number) {
  return {
    'gen_ai.request.model': 'SmolLM2-135M-Instruct',
    'ring2.hook': 'resid_pre',
    'ring2.layer': series >> 1,
    'ring2.phase': series % 2 === 0 ? 'prefill' : 'decode',
  }
}

/** Two phases to a layer. */
const placeOf = (series: number) => ({ signal: 0, hook: 0, layer: series >> 1, phase: series % 2 })

async function folding(pairs: number): Promise<Result> {
  const folds = createFoldBook()
  const fold = folds.of('bench')
  const { histogram } = sdk(1)
  const values = samples(batchSamples, 1)
  const attributes = attributesOf(0)
  const rates = async (batches: number, work: () => void): Promise<number> => {
    const seconds = await cpuSeconds(() => {
      for (let batch = 0; batch < batches; batch += 1) work()
    })
    return (batches * batchSamples) / seconds / 1e6
  }
  const ours = () => rates(20_000, () => fold.record(placeOf(0), values, 1, 0))
  const theirs = () =>
    rates(500, () => {
      for (const value of values) histogram.record(value, attributes)
    })
  const result = await inPairs('folded samples', 'Msample/s', ours, theirs, pairs)
  folds.destroy()
  return result
}

async function exporting(series: number, pairs: number): Promise<Result> {
  const receiver = await startReceiver()
  const logger = createLogger({ level: 'error', format: 'json' }, { write: () => undefined })
  const folds = createFoldBook()
  const { histogram, reader } = sdk(series)
  const request = folds.keyOf({
    key: 1,
    requestId: 'chat-1',
    traceId: 'a'.repeat(32),
    spanId: 'b'.repeat(16),
    parentSpanId: null,
    traceFlags: 1,
    traceState: null,
    traceOrigin: 'request',
    attributes: {},
    startedAtMicros: 0,
  })
  for (let index = 0; index < series; index += 1) {
    const values = samples(samplesPerSeries, index)
    folds.of('SmolLM2-135M-Instruct').record(placeOf(index), values, request, 1)
    for (const value of values) histogram.record(value, attributesOf(index))
  }
  const nothing = { delivered: 0, lost: {}, pending: 0, pendingBytes: 0, failures: 0 }
  const startedAtMicros = Date.now() * 1000
  const exporter = createMetricExporter({
    collect: () => {
      const takenAtMicros = Date.now() * 1000
      // What the worker posts to the main thread is cloned.
      const models = structuredClone(folds.read())
      const snapshot = { ...emptySnapshot(startedAtMicros), takenAtMicros, models }
      const exports = { startedAtMicros, takenAtMicros, spans: nothing, metrics: nothing }
      return { families: collectFamilies(snapshot, exports), takenAtMicros }
    },
    source: async () => source,
    sender: createMetricSender({ url: receiver.url }, logger),
    logger,
    intervalMillis: 3_600_000,
    bytesMax: 1 << 26,
  })
  const delegate = createOtlpGrpcExportDelegate(
    convertLegacyOtlpGrpcOptions({ url: receiver.url }, 'METRICS'),
    ProtobufMetricsSerializer,
    'bench',
    MetricsExporterMetricsHelper,
    undefined,
    'MetricsExportService',
    '/opentelemetry.proto.collector.metrics.v1.MetricsService/Export',
  )
  const ours = () =>
    cpuSeconds(async () => {
      if (!(await exporter.flush(waitMillis))) throw new Error('the receiver took nothing')
    })
  const theirs = () =>
    cpuSeconds(async () => {
      const { resourceMetrics } = await reader.collect()
      await new Promise<void>((resolve, reject) => {
        delegate.export(resourceMetrics, ({ code, error }) =>
          code === 0 ? resolve() : reject(error ?? new Error('the receiver took nothing')),
        )
      })
    })
  const millis = async (seconds: Promise<number>) => (await seconds) * 1000
  const result = await inPairs(
    `export of ${series} series`,
    'ms CPU',
    () => millis(ours()),
    () => millis(theirs()),
    pairs,
  )
  await exporter.shutdown(waitMillis)
  await delegate.shutdown()
  folds.destroy()
  await receiver.stop()
  return result
}

async function inPairs(
  name: string,
  unit: string,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
  pairs: number,
): Promise<Result> {
  const result = await comparePairs({ name, unit, vs: peer, ours, theirs, pairs, warmUps: 5 })
  process.stderr.write(`${name}: done\n`)
  return result
}

const { values } = parseArgs({ options: { pairs: { type: 'string', default: '11' } } })
const pairs = Math.max(3, Number(values.pairs))
const results = [await folding(pairs)]
for (const series of seriesCounts) results.push(await exporting(series, pairs))
process.stdout.write(`${JSON.stringify({ results }, null, 2)}\n`)
