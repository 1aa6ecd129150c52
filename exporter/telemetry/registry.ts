/**
 * The one registry of metrics: every name, kind, unit, attribute, bucket bound and help text.
 *
 * The OTLP producer, the /metrics page, docs/signals.md and whatever draws or alerts on a metric
 * read it here. Span names and attributes are in span-registry.ts. A metric never carries a request
 * id, a head or a token as attribute: those are unbounded.
 */

import { contextFaults } from '../../collector/records.ts'
import { uploadFailures } from '../store/upload-failure.ts'
import {
  baselineReasons,
  captureLosses,
  deliveryLosses,
  type MetricAttribute,
  type MetricDefinition,
  type MetricKind,
  type MetricUnit,
  metricAttributes,
} from './metric-definition.ts'
import { signalMetrics } from './signal-metrics.ts'

const elementAttributes = ['gen_ai.request.model', 'ring2.hook', 'ring2.layer'] as const

function plain(
  name: string,
  kind: Exclude<MetricKind, 'histogram'>,
  unit: MetricUnit,
  attributes: readonly MetricAttribute[],
  help: string,
  values: Readonly<Partial<Record<MetricAttribute, readonly string[]>>> = {},
): MetricDefinition {
  return { name, kind, unit, help, attributes, values }
}

/** Every metric, by a short name for code. */
export const metrics = {
  ...signalMetrics,
  tensorElements: plain(
    'ring2.tensor.elements',
    'counter',
    '{element}',
    elementAttributes,
    'Elements measured.',
  ),
  tensorNonfinite: plain(
    'ring2.tensor.nonfinite.elements',
    'counter',
    '{element}',
    [...elementAttributes, 'ring2.nonfinite.kind'],
    'Elements that are NaN or infinite.',
  ),
  tensorMassive: plain(
    'ring2.tensor.massive.elements',
    'counter',
    '{element}',
    elementAttributes,
    'Massive activations: above 100 and above 1000 times the median magnitude of their tensor.',
  ),
  tensorInvalidRows: plain(
    'ring2.tensor.invalid_rows',
    'counter',
    '{row}',
    elementAttributes,
    'Rows without statistics because of a value that is no finite number.',
  ),
  requests: plain(
    'ring2.requests',
    'counter',
    '{request}',
    ['gen_ai.request.model', 'ring2.verdict', 'ring2.completeness'],
    'Requests that have ended.',
  ),
  sliValid: plain(
    'ring2.sli.valid',
    'counter',
    '{request}',
    ['gen_ai.request.model'],
    'Requests with a verdict: all but the unknown ones.',
  ),
  sliGood: plain(
    'ring2.sli.good',
    'counter',
    '{request}',
    ['gen_ai.request.model'],
    'Requests with the verdict ok. Over ring2.sli.valid it is the service level indicator.',
  ),
  uncalibrated: plain(
    'ring2.verdict.uncalibrated.requests',
    'counter',
    '{request}',
    ['gen_ai.request.model', 'error.type'],
    'Requests judged by the built-in bounds, by why no baseline of their model was used.',
    { 'error.type': baselineReasons },
  ),
  requestActive: plain(
    'ring2.request.active',
    'up_down_counter',
    '{request}',
    [],
    'Requests that have begun and not ended.',
  ),
  contextRequests: plain(
    'ring2.context.requests',
    'counter',
    '{request}',
    ['ring2.trace.origin'],
    'Requests that have ended and were handed on, by where their trace id came from.',
  ),
  contextReceived: plain(
    'ring2.context.received',
    'counter',
    '{span}',
    [],
    'Spans of other processes that name a request and thereby give its trace context.',
  ),
  contextRejected: plain(
    'ring2.context.rejected',
    'counter',
    '{request}',
    ['error.type'],
    'Trace contexts that were not taken, by reason; the next best source is used.',
    { 'error.type': contextFaults },
  ),
  contextWaiting: plain(
    'ring2.context.waiting',
    'up_down_counter',
    '{request}',
    [],
    'Ended requests whose spans wait for a trace context.',
  ),
  contextLate: plain(
    'ring2.context.late.requests',
    'counter',
    '{request}',
    [],
    "Requests whose trace context came after their spans: sent once more, in the caller's trace.",
  ),
  contextSkewed: plain(
    'ring2.context.skewed.requests',
    'counter',
    '{request}',
    [],
    'Requests whose times lie outside their parent span: the clocks disagree.',
  ),
  policyChanges: plain(
    'ring2.policy.changes',
    'counter',
    '{change}',
    [],
    'Times that the capture policy was replaced while the exporter ran.',
  ),
  captureRecords: plain(
    'ring2.capture.records',
    'counter',
    '{record}',
    ['ring2.segment'],
    'Records that producers committed.',
  ),
  captureIo: plain(
    'ring2.capture.io',
    'counter',
    'By',
    ['ring2.segment'],
    'Payload bytes of the records that producers committed.',
  ),
  captureLostRecords: plain(
    'ring2.capture.lost.records',
    'counter',
    '{record}',
    ['ring2.segment', 'error.type'],
    'Records that were lost, by reason.',
    { 'error.type': captureLosses },
  ),
  captureLostIo: plain(
    'ring2.capture.lost.io',
    'counter',
    'By',
    ['ring2.segment', 'error.type'],
    'Payload bytes of the records that were lost, by reason.',
    { 'error.type': captureLosses },
  ),
  ringUsage: plain(
    'ring2.ring.usage',
    'up_down_counter',
    'By',
    ['ring2.segment', 'ring2.ring.kind'],
    'Bytes of a ring that hold records not yet released.',
  ),
  ringLimit: plain(
    'ring2.ring.limit',
    'up_down_counter',
    'By',
    ['ring2.segment', 'ring2.ring.kind'],
    'Size of a ring.',
  ),
  exportLag: plain(
    'ring2.export.lag',
    'gauge',
    's',
    ['ring2.segment'],
    'Age of the oldest record that is not yet released.',
  ),
  storeRows: plain('ring2.store.rows', 'counter', '{row}', [], 'Tensor rows written to the store.'),
  storeIo: plain('ring2.store.io', 'counter', 'By', [], 'Payload bytes written to the store.'),
  storeFiles: plain('ring2.store.files', 'counter', '{file}', [], 'Files published in the store.'),
  storeFailures: plain(
    'ring2.store.failures',
    'counter',
    '{failure}',
    [],
    'Writes to the store that failed; the data waits and is written again.',
  ),
  storeRemovedFiles: plain(
    'ring2.store.removed.files',
    'counter',
    '{file}',
    ['ring2.removal.reason'],
    'Files that retention removed from the store.',
  ),
  storeRemovedIo: plain(
    'ring2.store.removed.io',
    'counter',
    'By',
    ['ring2.removal.reason'],
    'Bytes of the files that retention removed from the store.',
  ),
  storePendingRows: plain(
    'ring2.store.pending.rows',
    'up_down_counter',
    '{row}',
    [],
    'Tensor rows that wait to be written.',
  ),
  storePendingSize: plain(
    'ring2.store.pending.size',
    'up_down_counter',
    'By',
    [],
    'Payload bytes that wait to be written.',
  ),
  storeUploadFiles: plain(
    'ring2.store.upload.files',
    'counter',
    '{file}',
    [],
    'Files that the bucket has taken and confirmed.',
  ),
  storeUploadIo: plain(
    'ring2.store.upload.io',
    'counter',
    'By',
    [],
    'Bytes of the files that the bucket has taken.',
  ),
  storeUploadFailures: plain(
    'ring2.store.upload.failures',
    'counter',
    '{failure}',
    ['error.type'],
    'Uploads that failed, by reason; the file waits and is sent again.',
    { 'error.type': uploadFailures },
  ),
  storeUploadPendingFiles: plain(
    'ring2.store.upload.pending.files',
    'up_down_counter',
    '{file}',
    [],
    'Files that wait for their upload.',
  ),
  storeUploadPendingSize: plain(
    'ring2.store.upload.pending.size',
    'up_down_counter',
    'By',
    [],
    'Bytes of the files that wait for their upload.',
  ),
  storeUploadPendingLimit: plain(
    'ring2.store.upload.pending.limit',
    'up_down_counter',
    'By',
    [],
    'Bytes that may wait for their upload; beyond it the rings fill.',
  ),
  exportSpans: plain(
    'ring2.export.spans',
    'counter',
    '{span}',
    [],
    'Spans that the Collector took.',
  ),
  exportLostSpans: plain(
    'ring2.export.lost.spans',
    'counter',
    '{span}',
    ['error.type'],
    'Spans that were lost, by reason.',
    { 'error.type': deliveryLosses },
  ),
  exportPendingSpans: plain(
    'ring2.export.pending.spans',
    'up_down_counter',
    '{span}',
    [],
    'Spans that wait for the Collector.',
  ),
  exportPoints: plain(
    'ring2.export.points',
    'counter',
    '{point}',
    [],
    'Points of metrics that the Collector took.',
  ),
  exportLostPoints: plain(
    'ring2.export.lost.points',
    'counter',
    '{point}',
    ['error.type'],
    'Points of metrics that were lost, by reason; counts are in the next export all the same.',
    { 'error.type': deliveryLosses },
  ),
  exportPendingPoints: plain(
    'ring2.export.pending.points',
    'up_down_counter',
    '{point}',
    [],
    'Points of metrics that wait for the Collector.',
  ),
  exportPendingSize: plain(
    'ring2.export.pending.size',
    'up_down_counter',
    'By',
    ['ring2.export.signal'],
    'Bytes that wait for the Collector; of spans they are estimated.',
  ),
  exportFailures: plain(
    'ring2.export.failures',
    'counter',
    '{failure}',
    ['ring2.export.signal'],
    'Exports that failed; what may be tried again is.',
  ),
  refusedSamples: plain(
    'ring2.telemetry.refused.samples',
    'counter',
    '{sample}',
    ['gen_ai.request.model'],
    'Samples that found no room in the metrics, because their model has too many series.',
  ),
} as const satisfies Record<string, MetricDefinition>

/** Every metric, in the order of the documents and of the /metrics page. */
export const allMetrics: readonly MetricDefinition[] = Object.values(metrics)

/** Every value that an attribute can have on a metric, or null where producers name them. */
export function knownValues(
  definition: MetricDefinition,
  attribute: MetricAttribute,
): readonly string[] | null {
  if (attribute === 'ring2.hook' && definition.hooks !== undefined) return definition.hooks
  return definition.values?.[attribute] ?? metricAttributes[attribute].values
}
