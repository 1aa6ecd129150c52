import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../../exporter/config.ts'
import { collectFamilies } from '../../../exporter/telemetry/metric-families.ts'
import {
  checkTemporality,
  type ExemplarFilter,
  exemplarFilter,
  metricIntervalMillis,
} from '../../../exporter/telemetry/metric-settings.ts'
import { metrics } from '../../../exporter/telemetry/registry.ts'
import {
  exportCounts,
  histogramOf,
  PARENT,
  recordingLogger,
  START_MICROS,
  snapshotOf,
  TRACE,
} from './fixtures.ts'

describe('OTEL_METRICS_EXEMPLAR_FILTER', () => {
  it.each([
    [undefined, 'trace_based'],
    ['', 'trace_based'],
    ['always_on', 'always_on'],
    [' Always_Off ', 'always_off'],
    ['trace_based', 'trace_based'],
  ])('%o means %s', (value, expected) => {
    const { logger, messages } = recordingLogger()
    const environment = value === undefined ? {} : { OTEL_METRICS_EXEMPLAR_FILTER: value }
    expect(exemplarFilter(environment, logger)).toBe(expected)
    expect(messages()).toEqual([])
  })

  it('is said where it is not understood, and the default holds', () => {
    const { logger, messages } = recordingLogger()
    const environment = { OTEL_METRICS_EXEMPLAR_FILTER: 'sometimes' }
    expect(exemplarFilter(environment, logger)).toBe('trace_based')
    expect(messages()).toHaveLength(1)
  })

  it.each<[ExemplarFilter, boolean, boolean]>([
    ['always_on', true, true],
    ['always_on', false, true],
    ['trace_based', true, true],
    ['trace_based', false, false],
    ['always_off', true, false],
    ['always_off', false, false],
  ])('%s keeps the exemplar of a request with sampled %s: %s', (filter, sampled, kept) => {
    const ids = { traceId: TRACE, spanId: PARENT, requestId: 'chat-1' }
    const exemplar = { value: 2, ...ids, sampled, atMicros: START_MICROS }
    const snapshot = snapshotOf([histogramOf([1, 2], 3, { exemplar })])
    const families = collectFamilies(snapshot, exportCounts(), filter)
    const norms = families.find(({ definition }) => definition === metrics.l2Norm)
    expect(norms?.histograms[0]?.histogram.count).toBe(2)
    expect(norms?.histograms[0]?.histogram.exemplar).toEqual(kept ? exemplar : undefined)
  })
})

describe('the metric variables of the specification', () => {
  const { config } = loadConfig({ environment: {} })

  it.each([
    ['2500', 2500],
    ['0', 15_000],
    ['-1', 15_000],
    ['soon', 15_000],
    ['', 15_000],
    ['1e12', 2 ** 31 - 1],
  ])('take OTEL_METRIC_EXPORT_INTERVAL %o as %i ms', (value, expected) => {
    const environment = { OTEL_METRIC_EXPORT_INTERVAL: value }
    expect(metricIntervalMillis(config, environment)).toBe(expected)
  })

  it('have no other temporality than cumulative, and a word for who wants one', () => {
    const { logger, messages } = recordingLogger()
    const name = 'OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE'
    for (const value of ['', 'cumulative', 'Cumulative']) {
      checkTemporality({ [name]: value }, logger)
    }
    expect(messages()).toEqual([])
    checkTemporality({ [name]: 'delta' }, logger)
    expect(messages()).toEqual([expect.stringContaining('not supported')])
  })
})
