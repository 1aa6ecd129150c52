import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { lossReasons, signals } from '../../../collector/layout.gen.ts'
import { loadConfig } from '../../../exporter/config.ts'
import { hrTimeOf } from '../../../exporter/telemetry/hr-time.ts'
import {
  type MetricDefinition,
  metricAttributes,
} from '../../../exporter/telemetry/metric-definition.ts'
import { collectFamilies, DESCRIPTOR_BYTES } from '../../../exporter/telemetry/metric-families.ts'
import type { LossReason, MetricSnapshot } from '../../../exporter/telemetry/metric-points.ts'
import { prometheusName } from '../../../exporter/telemetry/prometheus-names.ts'
import { allMetrics, metrics } from '../../../exporter/telemetry/registry.ts'
import { startTelemetry, type Telemetry } from '../../../exporter/telemetry/sdk.ts'
import {
  type OtlpMetric,
  plainAttributes,
  type Receiver,
  startReceiver,
} from '../../helpers/otlp-receiver.ts'
import { exportCounts, histogramOf, recordingLogger, START_MICROS, snapshotOf } from './fixtures.ts'

const WAIT_MILLIS = 60_000
vi.setConfig({ testTimeout: 2 * WAIT_MILLIS, hookTimeout: 2 * WAIT_MILLIS })

const values = [0, 0.25, 1, 1.5, 2, 3, 1000]
let receiver: Receiver
let telemetry: Telemetry | null = null

function start(snapshot: () => MetricSnapshot, endpoint = receiver.url) {
  const { config } = loadConfig({
    environment: {
      RING2_TELEMETRY_ENDPOINT: endpoint,
      RING2_TELEMETRY_METRICS_INTERVAL_SECONDS: '3600',
    },
  })
  const { logger, messages } = recordingLogger()
  telemetry = startTelemetry({ config, snapshot, logger, version: '0.1.0' })
  return { telemetry, messages }
}

function metricOf(exported: readonly OtlpMetric[] | undefined, name: string): OtlpMetric {
  const found = exported?.find((metric) => metric.name === name)
  if (found === undefined) throw new Error(`no metric ${name}`)
  return found
}

describe('metrics by OTLP', () => {
  beforeEach(async () => {
    receiver = await startReceiver()
  })
  afterEach(async () => {
    await telemetry?.shutdown(WAIT_MILLIS)
    telemetry = null
    await receiver.stop()
  })

  it('carry exponential histograms exactly as they were folded', async () => {
    const point = histogramOf(values, 3, { layer: 5, phase: 'decode' })
    const { telemetry: started } = start(() => snapshotOf([point]))
    await started.flush(WAIT_MILLIS)
    const metric = metricOf(receiver.metrics()[0], 'ring2.tensor.l2_norm')
    expect(metric.unit).toBe('1')
    expect(metric.exponentialHistogram?.aggregationTemporality).toBe(
      'AGGREGATION_TEMPORALITY_CUMULATIVE',
    )
    const [exported] = metric.exponentialHistogram?.dataPoints ?? []
    expect(exported).toMatchObject({
      count: '7',
      zeroCount: '1',
      sum: point.sum,
      min: 0,
      max: 1000,
      scale: 3,
      startTimeUnixNano: `${START_MICROS}000`,
      timeUnixNano: `${START_MICROS + 15_000_000}000`,
    })
    expect(exported?.positive?.offset).toBe(point.offset)
    expect(exported?.positive?.bucketCounts?.map(Number)).toEqual(point.buckets)
    expect(plainAttributes(exported?.attributes)).toEqual({
      'gen_ai.request.model': 'SmolLM2-135M-Instruct',
      'ring2.hook': 'resid_pre',
      'ring2.layer': 5,
      'ring2.phase': 'decode',
    })
  })

  it('carry counters since the start that they really have', async () => {
    const { telemetry: started } = start(() => snapshotOf([]))
    await started.flush(WAIT_MILLIS)
    const exported = receiver.metrics()[0]
    const records = metricOf(exported, 'ring2.capture.records').sum
    expect(records).toMatchObject({ isMonotonic: true })
    expect(records?.dataPoints[0]).toMatchObject({
      asInt: '100',
      startTimeUnixNano: `${START_MICROS - 60_000_000}000`,
    })
    expect(metricOf(exported, 'ring2.requests').sum?.dataPoints[0]?.startTimeUnixNano).toBe(
      `${START_MICROS}000`,
    )
    expect(metricOf(exported, 'ring2.ring.usage').sum?.isMonotonic ?? false).toBe(false)
    expect(metricOf(exported, 'ring2.export.lag').gauge?.dataPoints[0]?.asDouble).toBe(0.25)
  })

  it('start anew with the exporter, but for what outlives it', async () => {
    const restartMicros = START_MICROS + 600_000_000
    const first = snapshotOf([histogramOf(values, 3)])
    start(() => first)
    await telemetry?.shutdown(WAIT_MILLIS)
    const second = {
      ...snapshotOf([histogramOf([1], 3)]),
      startedAtMicros: restartMicros,
      takenAtMicros: restartMicros + 1_000_000,
    }
    start(() => second)
    await telemetry?.shutdown(WAIT_MILLIS)
    telemetry = null
    const starts = (name: string) =>
      receiver
        .metrics()
        .map((exported) => metricOf(exported, name))
        .map(({ sum, exponentialHistogram }) => (sum ?? exponentialHistogram)?.dataPoints[0])
        .map((point) => [point?.startTimeUnixNano, point?.count ?? point?.asInt])
    expect(starts('ring2.tensor.l2_norm')).toEqual([
      [`${START_MICROS}000`, '7'],
      [`${restartMicros}000`, '1'],
    ])
    expect(starts('ring2.requests').map(([startNanos]) => startNanos)).toEqual([
      `${START_MICROS}000`,
      `${restartMicros}000`,
    ])
    // The segment's header counts on.
    const segmentStart = `${START_MICROS - 60_000_000}000`
    expect(starts('ring2.capture.records')).toEqual([
      [segmentStart, '100'],
      [segmentStart, '100'],
    ])
    const [one, other] = starts('ring2.export.points').map(([startNanos]) =>
      BigInt(startNanos ?? 0),
    )
    expect(other).toBeGreaterThanOrEqual(one ?? 0n)
  })

  it('give a series that appears later a start before its first sample', async () => {
    const histograms = [histogramOf([1], 3)]
    let snapshot = snapshotOf(histograms)
    const { telemetry: started } = start(() => snapshot)
    await started.flush(WAIT_MILLIS)
    const later = snapshotOf(histograms)
    const firstSampleMicros = START_MICROS + 20_000_000
    snapshot = {
      ...later,
      takenAtMicros: firstSampleMicros + 1,
      models: [...later.models, { model: 'another', refused: 0, histograms, elements: [] }],
    }
    await started.flush(WAIT_MILLIS)
    const points = receiver
      .metrics()
      .flatMap((exported) => metricOf(exported, 'ring2.tensor.l2_norm'))
      .flatMap((metric) => metric.exponentialHistogram?.dataPoints ?? [])
    const another = points.filter(
      ({ attributes }) => plainAttributes(attributes)['gen_ai.request.model'] === 'another',
    )
    expect(another).toHaveLength(1)
    expect(BigInt(another[0]?.startTimeUnixNano ?? 0)).toBeLessThanOrEqual(
      BigInt(firstSampleMicros) * 1000n,
    )
    expect(points).toHaveLength(3)
  })

  it('follow the snapshot from export to export', async () => {
    let snapshot = snapshotOf([histogramOf([1], 3)])
    const { telemetry: started } = start(() => snapshot)
    await started.flush(WAIT_MILLIS)
    snapshot = snapshotOf([histogramOf([1, 2, 4], 3)])
    await started.flush(WAIT_MILLIS)
    const counts = receiver
      .metrics()
      .map((exported) => metricOf(exported, 'ring2.tensor.l2_norm'))
      .map((metric) => metric.exponentialHistogram?.dataPoints[0]?.count)
    expect(counts).toEqual(['1', '3'])
  })

  it('reach the Collector in several messages when there are many series', async () => {
    const points = Array.from({ length: 5000 }, (_, layer) => histogramOf(values, 3, { layer }))
    const { telemetry: started } = start(() => snapshotOf(points))
    await started.flush(WAIT_MILLIS)
    const exported = receiver.metrics()
    expect(exported.length).toBeGreaterThan(2)
    const layers = exported
      .flat()
      .filter(({ name }) => name === 'ring2.tensor.l2_norm')
      .flatMap((metric) => metric.exponentialHistogram?.dataPoints ?? [])
      .map(({ attributes }) => plainAttributes(attributes)['ring2.layer'])
    expect(new Set(layers).size).toBe(5000)
  })

  it('are sent once more at shutdown', async () => {
    const { telemetry: started } = start(() => snapshotOf([]))
    await started.shutdown(WAIT_MILLIS)
    expect(receiver.metrics()).toHaveLength(1)
  })

  it('are missed once in the log when the Collector is away, and found again once', async () => {
    await receiver.stop()
    receiver = await startReceiver(['--fail-first', '2'])
    const { telemetry: started, messages } = start(() => snapshotOf([]))
    expect(await started.flush(WAIT_MILLIS)).toBe(true)
    expect(started.status().metrics).toMatchObject({ failures: 2, failing: null, pending: 0 })
    expect(receiver.metrics()).toHaveLength(1)
    expect(messages().filter((message) => message.includes('metrics'))).toEqual([
      expect.stringContaining('OTLP is on'),
      expect.stringContaining('RING2_E_TELEMETRY'),
      'the Collector takes metrics again',
    ])
  })

  it('are the same on the /metrics page', () => {
    const { telemetry: started } = start(() => snapshotOf([histogramOf(values, 3)]))
    expect(started.metricsPage().body).toMatch(/ring2_tensor_l2_norm_count\{[^}]*\} 7\.0\n/)
    expect(started.metricsPage().body.endsWith('# EOF\n')).toBe(true)
  })
})

describe('the registry', () => {
  it('has one metric for every native signal, and none for another', () => {
    const folded = allMetrics.flatMap(({ signal }) => (signal === undefined ? [] : [signal]))
    expect([...folded].sort()).toEqual([...signals.values()].sort())
  })

  it('covers every metric by what a snapshot gives', () => {
    const points = [...signals.keys()].map((signal) => histogramOf(values, 3, { signal }))
    const families = collectFamilies(snapshotOf(points), exportCounts())
    expect(families.map(({ definition }) => definition.name)).toEqual(
      allMetrics.map(({ name }) => name),
    )
    for (const { definition, numbers, histograms } of families) {
      for (const { attributes } of [...numbers, ...histograms]) {
        expect(definition.attributes).toEqual(expect.arrayContaining(Object.keys(attributes)))
      }
    }
  })

  it('names losses as the native library does', () => {
    const reasons: LossReason[] = [
      'meta_full',
      'payload_full',
      'oversized',
      'step_lost',
      'aborted',
      'unsupported',
      'leftover',
      'producer_died',
      'corrupt',
      'unattributed',
    ]
    expect([...lossReasons.values()]).toEqual(reasons)
    const listed = metricAttributes['error.type'].values
    expect(listed).toEqual(expect.arrayContaining(reasons))
  })

  it('counts every reason of loss from the start, and one that only the producer knows', () => {
    const snapshot = snapshotOf([])
    const newer = { reason: 'reason_15' as LossReason, records: 3, bytes: 30 }
    const segments = snapshot.segments.map((segment) => ({
      ...segment,
      losses: [...segment.losses, newer],
    }))
    const families = collectFamilies({ ...snapshot, segments }, exportCounts())
    const counted = (definition: MetricDefinition) =>
      families
        .find((family) => family.definition === definition)
        ?.numbers.map(({ attributes, value }) => [attributes['error.type'], value])
    const reasons = [...lossReasons.values(), 'reason_15']
    const expected = (occurred: Readonly<Record<string, number>>) =>
      reasons.map((reason) => [reason, occurred[reason] ?? 0])
    expect(counted(metrics.captureLostRecords)).toEqual(expected({ payload_full: 2, reason_15: 3 }))
    expect(counted(metrics.captureLostIo)).toEqual(expected({ payload_full: 2048, reason_15: 30 }))
  })

  it('knows the size of a descriptor', () => {
    const header = join(import.meta.dirname, '../../../native/include/ring2_layout.h')
    const assertion = /sizeof\(ring2_descriptor\) == (\d+)/.exec(readFileSync(header, 'utf8'))
    expect(Number(assertion?.[1])).toBe(DESCRIPTOR_BYTES)
  })

  it('gives every metric a valid name of its own, in both worlds', () => {
    for (const { name, help } of allMetrics) {
      expect(name).toMatch(/^ring2(\.[a-z][a-z0-9_]*)+$/)
      expect(help).toMatch(/\.$/)
    }
    const names = allMetrics.map(prometheusName)
    expect(new Set(names).size).toBe(allMetrics.length)
    expect(names).toContain('ring2_store_io_bytes_total')
  })

  it('never has a request, a head or a token as an attribute', () => {
    for (const name of Object.keys(metricAttributes))
      expect(name).not.toMatch(/request\.id|head|token/)
  })

  it('has bounds that grow', () => {
    for (const { quarterOctaves } of allMetrics) {
      const bounds = quarterOctaves ?? []
      expect([...bounds].sort((a, b) => a - b)).toEqual(bounds)
      expect(new Set(bounds).size).toBe(bounds.length)
    }
  })
})

describe('hrTimeOf', () => {
  it('splits microseconds exactly', () => {
    expect(hrTimeOf(START_MICROS)).toEqual([Math.floor(START_MICROS / 1e6), 123_000])
    expect(hrTimeOf(0)).toEqual([0, 0])
    expect(hrTimeOf(999_999)).toEqual([0, 999_999_000])
  })
})
