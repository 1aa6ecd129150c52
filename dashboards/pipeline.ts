/** The exporter's own health: rings, losses, lag, store, what was sent and what was not. */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import type { MetricAttribute, MetricDefinition } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../exporter/telemetry/registry.ts'
import { thresholds } from '../exporter/telemetry/thresholds.ts'
import { buildDashboard } from './layout.ts'
import { figure, graph, type Levels, type PanelDraft } from './panels.ts'
import {
  aggregate,
  chosen,
  type Grouping,
  increase,
  type Matchers,
  rate,
  select,
} from './promql.ts'
import { countUnit, rateUnitOf, shareUnit, unitOf } from './units.ts'
import {
  datasourceVariable,
  exporterVariable,
  modelVariable,
  segmentVariable,
} from './variables.ts'

const segment: Matchers = { 'ring2.segment': chosen('segment') }
const model: Matchers = { 'gen_ai.request.model': chosen('model') }

interface CountPanel {
  readonly title: string
  readonly reading?: string
  readonly width?: number
  readonly by?: readonly MetricAttribute[]
  readonly matchers?: Matchers
  readonly levels?: Levels
}

function legendOf(by: readonly MetricAttribute[]): string {
  return by.length === 0 ? 'all' : by.map((name) => `{{${openMetricsLabel(name)}}}`).join(' ')
}

/** A counter's growth per second. */
function growth(metric: MetricDefinition, panel: CountPanel): PanelDraft {
  const by = panel.by ?? []
  return graph({
    title: panel.title,
    description: [metric.help, panel.reading ?? ''].join(' ').trim(),
    unit: rateUnitOf(metric),
    width: panel.width ?? 8,
    min: 0,
    ...(panel.levels === undefined ? {} : { levels: panel.levels }),
    queries: [
      { expr: aggregate('sum', by, rate(metric, panel.matchers ?? {})), legend: legendOf(by) },
    ],
  })
}

/** What there is now. */
function level(metric: MetricDefinition, panel: CountPanel): PanelDraft {
  const by = panel.by ?? []
  const operation = metric.kind === 'gauge' ? 'max' : 'sum'
  return graph({
    title: panel.title,
    description: [metric.help, panel.reading ?? ''].join(' ').trim(),
    unit: unitOf(metric),
    width: panel.width ?? 8,
    min: 0,
    ...(panel.levels === undefined ? {} : { levels: panel.levels }),
    queries: [
      { expr: aggregate(operation, by, select(metric, panel.matchers)), legend: legendOf(by) },
    ],
  })
}

const anyIsBad: Levels = { warning: 0.001, critical: 1 }
const byInstance: readonly Grouping[] = ['instance']
const bySegment = ['ring2.segment'] as const
const rings: readonly MetricAttribute[] = ['ring2.segment', 'ring2.ring.kind']
const losses: readonly MetricAttribute[] = ['ring2.segment', 'error.type']

const capture: readonly PanelDraft[] = [
  graph({
    title: 'Ring occupancy',
    description: `Share of each ring that holds records not yet released: ${thresholds.ringOccupancy.help}. Full, records are lost.`,
    unit: shareUnit,
    width: 12,
    min: 0,
    max: 1,
    levels: thresholds.ringOccupancy,
    queries: [
      {
        expr: `${aggregate('sum', rings, select(metrics.ringUsage, segment))} / ${aggregate('sum', rings, select(metrics.ringLimit, segment))}`,
        legend: legendOf(rings),
      },
    ],
  }),
  level(metrics.exportLag, {
    title: 'Lag',
    width: 12,
    by: bySegment,
    matchers: segment,
    levels: thresholds.lagSeconds,
    reading: 'About the flush interval of the store is normal.',
  }),
  growth(metrics.captureRecords, {
    title: 'Records captured',
    width: 6,
    by: bySegment,
    matchers: segment,
  }),
  growth(metrics.captureIo, {
    title: 'Bytes captured',
    width: 6,
    by: bySegment,
    matchers: segment,
  }),
  growth(metrics.captureLostRecords, {
    title: 'Records lost',
    width: 6,
    by: losses,
    matchers: segment,
    levels: anyIsBad,
    reading: 'Zero while nothing is lost.',
  }),
  growth(metrics.captureLostIo, {
    title: 'Bytes lost',
    width: 6,
    by: losses,
    matchers: segment,
    levels: anyIsBad,
    reading: 'Zero while nothing is lost.',
  }),
  growth(metrics.policyChanges, {
    title: 'Changes of the capture policy',
    width: 24,
    reading: 'What is captured differs before and after each.',
  }),
]

const requests: readonly PanelDraft[] = [
  level(metrics.requestActive, {
    title: 'Requests that run',
    width: 12,
    reading: 'Only growing, ends of requests are missing.',
  }),
  graph({
    title: 'Completeness',
    description: `${metrics.requests.help} Whether everything that they called for was seen.`,
    unit: rateUnitOf(metrics.requests),
    width: 12,
    stacked: true,
    min: 0,
    colours: { complete: 'green', incomplete: 'red', unknown: 'text' },
    queries: [
      {
        expr: aggregate('sum', ['ring2.completeness'], rate(metrics.requests, model)),
        legend: legendOf(['ring2.completeness']),
      },
    ],
  }),
  growth(metrics.refusedSamples, {
    title: 'Samples that found no room',
    width: 12,
    by: ['gen_ai.request.model'],
    matchers: model,
    levels: anyIsBad,
  }),
  growth(metrics.uncalibrated, {
    title: 'Requests judged without a baseline',
    width: 12,
    by: ['gen_ai.request.model', 'error.type'],
    matchers: model,
    reading: 'Learn one with `ring2-exporter calibrate`.',
  }),
]

const contexts: readonly PanelDraft[] = [
  growth(metrics.contextRequests, {
    title: 'Where trace ids came from',
    by: ['ring2.trace.origin'],
    reading: 'A derived one is in no trace of the caller.',
  }),
  growth(metrics.contextReceived, { title: 'Trace contexts received' }),
  growth(metrics.contextRejected, {
    title: 'Trace contexts rejected',
    by: ['error.type'],
    levels: anyIsBad,
  }),
  level(metrics.contextWaiting, { title: 'Trace contexts that wait' }),
  growth(metrics.contextLate, { title: 'Trace contexts that came late' }),
  growth(metrics.contextSkewed, { title: 'Clocks that disagree' }),
]

const store: readonly PanelDraft[] = [
  growth(metrics.storeRows, { title: 'Rows stored', width: 6 }),
  growth(metrics.storeIo, { title: 'Bytes stored', width: 6 }),
  growth(metrics.storeFiles, {
    title: 'Files published',
    width: 6,
    reading: 'Many small files: lengthen the flush interval.',
  }),
  figure({
    title: 'Failed writes',
    description: `${metrics.storeFailures.help} Over the time range.`,
    unit: countUnit,
    width: 6,
    height: 8,
    decimals: 0,
    levels: thresholds.storeFailures,
    query: {
      expr: aggregate('sum', [], increase(metrics.storeFailures, {}, '$__range')),
      legend: 'failures',
    },
  }),
  level(metrics.storePendingRows, { title: 'Rows that wait', width: 12 }),
  level(metrics.storePendingSize, { title: 'Bytes that wait', width: 12 }),
]

const uploads: readonly PanelDraft[] = [
  graph({
    title: 'Upload queue',
    description: `Share of the bound that waits: ${thresholds.uploadQueue.help}. Full, the rings fill. Without a bucket there is none.`,
    unit: shareUnit,
    width: 12,
    min: 0,
    max: 1,
    levels: thresholds.uploadQueue,
    queries: [
      {
        expr: `${aggregate('sum', byInstance, select(metrics.storeUploadPendingSize))} / ${aggregate('sum', byInstance, select(metrics.storeUploadPendingLimit))}`,
        legend: '{{instance}}',
      },
    ],
  }),
  growth(metrics.storeUploadFailures, {
    title: 'Failed uploads',
    width: 12,
    by: ['error.type'],
    levels: anyIsBad,
    reading: 'forbidden, no_bucket and refused want somebody; the others mostly end by themselves.',
  }),
  growth(metrics.storeUploadFiles, { title: 'Files uploaded', width: 6 }),
  growth(metrics.storeUploadIo, { title: 'Bytes uploaded', width: 6 }),
  level(metrics.storeUploadPendingFiles, { title: 'Files that wait for the bucket', width: 6 }),
  graph({
    title: 'Bytes that wait for the bucket',
    description: `${metrics.storeUploadPendingSize.help} Beside it the bound: ${metrics.storeUploadPendingLimit.help}`,
    unit: unitOf(metrics.storeUploadPendingSize),
    width: 6,
    min: 0,
    queries: [
      { expr: aggregate('sum', [], select(metrics.storeUploadPendingSize)), legend: 'waiting' },
      { expr: aggregate('sum', [], select(metrics.storeUploadPendingLimit)), legend: 'bound' },
    ],
  }),
]

const byReason = ['ring2.removal.reason'] as const

const retention: readonly PanelDraft[] = [
  growth(metrics.storeRemovedFiles, {
    title: 'Files removed',
    width: 12,
    by: byReason,
    reading:
      'By age or by the size of the store; deletions that somebody asked for are not among them.',
  }),
  growth(metrics.storeRemovedIo, { title: 'Bytes removed', width: 12, by: byReason }),
]

const sent: readonly PanelDraft[] = [
  growth(metrics.exportSpans, { title: 'Spans delivered' }),
  level(metrics.exportPendingSpans, {
    title: 'Spans that wait',
    reading: 'They wait while the Collector is away.',
  }),
  growth(metrics.exportLostSpans, {
    title: 'Spans lost',
    by: ['error.type'],
    levels: anyIsBad,
  }),
  growth(metrics.exportPoints, { title: 'Metric points delivered' }),
  level(metrics.exportPendingPoints, { title: 'Metric points that wait' }),
  growth(metrics.exportLostPoints, {
    title: 'Metric points lost',
    by: ['error.type'],
    levels: anyIsBad,
  }),
  level(metrics.exportPendingSize, {
    title: 'Bytes that wait for the Collector',
    width: 12,
    by: ['ring2.export.signal'],
  }),
  growth(metrics.exportFailures, {
    title: 'Failed exports',
    width: 12,
    by: ['ring2.export.signal'],
    levels: anyIsBad,
  }),
]

export function pipelineDashboard(): Dashboard {
  return buildDashboard({
    name: 'pipeline',
    title: 'ring2 / Pipeline',
    description:
      'The exporter itself: from the rings to the store and the Collector, and what got lost.',
    variables: [datasourceVariable, modelVariable, segmentVariable, exporterVariable],
    rows: [
      { title: 'Capture', panels: capture },
      { title: 'Requests', panels: requests },
      { title: 'Trace contexts', panels: contexts },
      { title: 'Store', panels: store },
      { title: 'Uploads', panels: uploads },
      { title: 'Retention', panels: retention },
      { title: 'Telemetry', panels: sent },
    ],
  })
}
