import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { HistogramPoint } from '../../../collector/records.ts'
import {
  encodeMetrics,
  type MetricSource,
  ZERO_THRESHOLD,
} from '../../../exporter/telemetry/metric-encoding.ts'
import { collectFamilies, type MetricFamily } from '../../../exporter/telemetry/metric-families.ts'
import { allMetrics, metrics } from '../../../exporter/telemetry/registry.ts'
import { decodeOfficially, metricsOf, pointsOf } from '../../helpers/metric-server.ts'
import { plainAttributes } from '../../helpers/otlp-receiver.ts'
import { exportCounts, histogramOf, PARENT, START_MICROS, snapshotOf, TRACE } from './fixtures.ts'

vi.setConfig({ testTimeout: 60_000 })

const source: MetricSource = {
  resource: {
    'service.name': 'ring2-exporter',
    'process.pid': 42,
    'some.share': 0.5,
    'some.flag': true,
    'some.list': ['a', 'ü'],
    'some.debt': -3,
  },
  scope: { name: 'ring2-exporter', version: '0.1.0' },
}
const TAKEN_MICROS = START_MICROS + 15_000_000
const unbounded = { pointsMax: 1e6, bytesMax: 1 << 26 }
const exemplar = {
  value: 2.5,
  traceId: TRACE,
  spanId: PARENT,
  requestId: 'chat-1',
  sampled: true,
  atMicros: START_MICROS + 5_000_001,
}

function encode(families: readonly MetricFamily[], limits = unbounded) {
  return encodeMetrics(families, TAKEN_MICROS, source, limits, (error) => {
    throw error
  })
}

function familiesOf(histograms: readonly HistogramPoint[]): MetricFamily[] {
  return collectFamilies(snapshotOf(histograms), exportCounts())
}

function decoded(families: readonly MetricFamily[]) {
  const [request, ...others] = encode(families)
  if (request === undefined || others.length > 0) throw new Error('expected one request')
  const [decodedRequest] = decodeOfficially([request.bytes])
  if (decodedRequest === undefined) throw new Error('nothing was decoded')
  return { points: request.points, request: decodedRequest }
}

describe('encodeMetrics', () => {
  it('writes an exponential histogram with all its fields and its exemplar', () => {
    const point = histogramOf([0, 0.25, 2.5, 2.5, 1e300], 3, { layer: 5, exemplar })
    const { request, points } = decoded(
      familiesOf([point]).filter(({ definition }) => definition === metrics.l2Norm),
    )
    expect(points).toBe(1)
    expect(request).toEqual({
      unknown_bytes: 0,
      resourceMetrics: [
        {
          resource: {
            attributes: [
              { key: 'service.name', value: { stringValue: 'ring2-exporter' } },
              { key: 'process.pid', value: { intValue: '42' } },
              { key: 'some.share', value: { doubleValue: 0.5 } },
              { key: 'some.flag', value: { boolValue: true } },
              {
                key: 'some.list',
                value: { arrayValue: { values: [{ stringValue: 'a' }, { stringValue: 'ü' }] } },
              },
              { key: 'some.debt', value: { intValue: '-3' } },
            ],
          },
          scopeMetrics: [
            {
              scope: { name: 'ring2-exporter', version: '0.1.0' },
              metrics: [
                {
                  name: 'ring2.tensor.l2_norm',
                  description: metrics.l2Norm.help,
                  unit: '1',
                  exponentialHistogram: {
                    aggregationTemporality: 'AGGREGATION_TEMPORALITY_CUMULATIVE',
                    dataPoints: [
                      {
                        attributes: [
                          {
                            key: 'gen_ai.request.model',
                            value: { stringValue: 'SmolLM2-135M-Instruct' },
                          },
                          { key: 'ring2.hook', value: { stringValue: 'resid_pre' } },
                          { key: 'ring2.layer', value: { intValue: '5' } },
                          { key: 'ring2.phase', value: { stringValue: 'prefill' } },
                        ],
                        startTimeUnixNano: `${START_MICROS}000`,
                        timeUnixNano: `${TAKEN_MICROS}000`,
                        count: '5',
                        sum: 1e300,
                        scale: 3,
                        zeroCount: '1',
                        zeroThreshold: ZERO_THRESHOLD,
                        positive: { offset: point.offset, bucketCounts: point.buckets.map(String) },
                        min: 0,
                        max: 1e300,
                        exemplars: [
                          {
                            timeUnixNano: `${START_MICROS + 5_000_001}000`,
                            asDouble: 2.5,
                            spanId: PARENT,
                            traceId: TRACE,
                            filteredAttributes: [
                              { key: 'ring2.request.id', value: { stringValue: 'chat-1' } },
                            ],
                          },
                        ],
                      },
                    ],
                  },
                },
              ],
            },
          ],
        },
      ],
    })
  })

  it('writes counters, other sums and gauges, each as its kind and with its own start', () => {
    const { request } = decoded(familiesOf([]))
    const found = new Map(metricsOf(request).map((metric) => [metric.name, metric]))
    expect(found.get('ring2.capture.io')?.sum).toEqual({
      aggregationTemporality: 'AGGREGATION_TEMPORALITY_CUMULATIVE',
      isMonotonic: true,
      dataPoints: [
        {
          attributes: [{ key: 'ring2.segment', value: { stringValue: 'chat' } }],
          startTimeUnixNano: `${START_MICROS - 60_000_000}000`,
          timeUnixNano: `${TAKEN_MICROS}000`,
          asInt: '123456',
        },
      ],
    })
    const active = found.get('ring2.request.active')?.sum
    expect(active?.isMonotonic).toBeUndefined()
    expect(active?.dataPoints[0]?.asInt).toBe('2')
    expect(found.get('ring2.export.lag')?.gauge).toEqual({
      dataPoints: [
        {
          attributes: [{ key: 'ring2.segment', value: { stringValue: 'chat' } }],
          startTimeUnixNano: `${START_MICROS - 60_000_000}000`,
          timeUnixNano: `${TAKEN_MICROS}000`,
          asDouble: 0.25,
        },
      ],
    })
    // Counts of the exporters are newer than the snapshot, and say so.
    expect(found.get('ring2.export.points')?.sum?.dataPoints[0]).toMatchObject({
      timeUnixNano: `${START_MICROS + 16_000_000}000`,
      asInt: '7',
    })
    expect(request.unknown_bytes).toBe(0)
  })

  it('writes every metric of the registry under its name, unit and help', () => {
    const withSignal = collectFamilies(snapshotOf([]), exportCounts())
    const { request } = decoded(withSignal)
    const definitions = new Map(allMetrics.map((definition) => [definition.name, definition]))
    for (const { name, unit, description } of metricsOf(request)) {
      expect(definitions.get(name)).toMatchObject({ unit, help: description })
    }
  })

  it('leaves out the extremes of an empty histogram, and says that it is empty', () => {
    const { request } = decoded(
      familiesOf([histogramOf([], 20)]).filter(({ definition }) => definition === metrics.l2Norm),
    )
    const [point] = pointsOf(request)
    expect(point).toMatchObject({ sum: 0, scale: 20 })
    // The official JSON leaves zeros out.
    expect([point?.count ?? '0', point?.zeroCount ?? '0']).toEqual(['0', '0'])
    expect(point).not.toHaveProperty('min')
    expect(point).not.toHaveProperty('max')
  })

  it('keeps large counts and negative offsets exact', () => {
    const count = 2 ** 53 - 1
    const point = histogramOf([], -10, { count, offset: -1234, buckets: [count, 0, 128], min: 1 })
    const { request } = decoded(
      familiesOf([point]).filter(({ definition }) => definition === metrics.l2Norm),
    )
    expect(pointsOf(request)[0]).toMatchObject({
      count: String(count),
      scale: -10,
      positive: { offset: -1234, bucketCounts: [String(count), '0', '128'] },
    })
  })

  it('never starts a point after its time, whatever a producer says of its clock', () => {
    const snapshot = snapshotOf([])
    const segments = snapshot.segments.map((segment) => ({
      ...segment,
      startedAtMicros: TAKEN_MICROS + 1e9,
    }))
    const { request } = decoded(collectFamilies({ ...snapshot, segments }, exportCounts()))
    for (const { startTimeUnixNano, timeUnixNano } of pointsOf(request)) {
      expect(BigInt(startTimeUnixNano)).toBeLessThanOrEqual(BigInt(timeUnixNano))
    }
  })

  it('splits by points and by bytes, and every point is in one request, once', () => {
    const histograms = Array.from({ length: 300 }, (_, layer) =>
      histogramOf([1, 2, 3, 1000], 4, { layer }),
    )
    const families = familiesOf(histograms)
    const all = encode(families)[0]?.points ?? 0
    for (const limits of [
      { pointsMax: 70, bytesMax: 1 << 20 },
      { pointsMax: 1000, bytesMax: 20_000 },
    ]) {
      const requests = encode(families, limits)
      expect(requests.length).toBeGreaterThan(4)
      const names: string[] = []
      const read = decodeOfficially(requests.map(({ bytes }) => bytes))
      for (const [index, { bytes, points }] of requests.entries()) {
        const request = read[index]
        if (request === undefined) throw new Error('a request was not decoded')
        expect(points).toBeLessThanOrEqual(limits.pointsMax)
        expect(bytes.length).toBeLessThanOrEqual(limits.bytesMax)
        expect(request.unknown_bytes).toBe(0)
        expect(pointsOf(request)).toHaveLength(points)
        expect(request.resourceMetrics).toHaveLength(1)
        expect(metricsOf(request).every((metric) => metric.description.length > 0)).toBe(true)
        names.push(
          ...pointsOf(request).map(
            ({ name, attributes }) => `${name}${JSON.stringify(plainAttributes(attributes))}`,
          ),
        )
      }
      expect(names).toHaveLength(all)
      expect(new Set(names).size).toBe(all)
    }
  })

  it('sends a point that is larger than the bound alone', () => {
    const families = familiesOf([histogramOf([1, 2], 20, { buckets: new Array(160).fill(300) })])
    const requests = encode(families, { pointsMax: 100, bytesMax: 300 })
    expect(requests.every(({ points }) => points === 1)).toBe(true)
  })

  it('writes no request where there is no point', () => {
    expect(encode([])).toEqual([])
  })

  it('says below which magnitude samples count as zero, as native code does', () => {
    const header = join(import.meta.dirname, '../../../native/src/fold.h')
    const found = /kFoldZeroBelow = ([\de.-]+);/.exec(readFileSync(header, 'utf8'))
    expect(Number(found?.[1])).toBe(ZERO_THRESHOLD)
  })
})
