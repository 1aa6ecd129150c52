/** Alerts on the exporter itself: what it cannot store, cannot send, or that it is gone. */
import { openMetricsLabel } from '../../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../../exporter/telemetry/registry.ts'
import { thresholds } from '../../exporter/telemetry/thresholds.ts'
import { aggregate, type Grouping, grew, increase, is, type Matcher, select } from '../promql.ts'
import type { Alert } from './alert.ts'

const byExporter: readonly Grouping[] = ['service_name', 'host_name']
/** By OTLP the instance is `service.instance.id`; scraped, it is the address. */
const byInstance: readonly Grouping[] = [...byExporter, 'instance']
const exporter = '{{ $labels.service_name }} on {{ $labels.host_name }}'
const window = '15m'
/** For so long an exporter and the one that follows it may both be seen. */
const ROLLOUT_SECONDS = 600

/** A metric of the exporter itself that is always there. */
const alive = select(metrics.requestActive)

/**
 * Instances that were there within hours and are not any more. One whose place on its host a younger one has
 * taken is not missed: a new pod is a new instance. The two may overlap while one is rolled out.
 */
function goneInstances(): string {
  const times = `timestamp(${alive})[6h:1m]`
  const last = aggregate('max', byInstance, `max_over_time(${times})`)
  const gone = `(${last} unless ${aggregate('max', byInstance, alive)})`
  const youngest = aggregate('max', byExporter, `min_over_time(${times}) and ${alive}`)
  const onHost = `on (${byExporter.join(', ')})`
  return [
    `(${gone} unless ${onHost} ${youngest})`,
    `(${gone} - ${onHost} group_left () ${youngest} > ${ROLLOUT_SECONDS})`,
  ].join('\nor ')
}

/**
 * Uploads that fail by reasons that do not end by themselves; and by the others, when none succeeds meanwhile.
 * One refused file does not hide behind those that go on.
 */
function failingUploads(): string {
  const failed = (matcher: Matcher) => {
    const increased = increase(metrics.storeUploadFailures, { 'error.type': matcher }, window)
    const summed = aggregate('sum', [...byExporter, 'error.type'], increased)
    return `${summed} >= ${thresholds.uploadFailures.critical}`
  }
  const lasting = is('forbidden', 'no_bucket', 'refused')
  const passing = is('unreachable', 'throttled', 'server_error')
  const taken = aggregate('sum', byExporter, increase(metrics.storeUploadFiles, {}, window))
  const onExporter = `on (${byExporter.join(', ')})`
  return `(${failed(lasting)})\nor (${failed(passing)} unless ${onExporter} ${taken} > 0)`
}

export const pipelineAlerts: readonly Alert[] = [
  {
    name: 'Ring2StoreFailing',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression:
      `${aggregate('sum', byExporter, increase(metrics.storeFailures, {}, window))} >= ` +
      `${thresholds.storeFailures.critical}`,
    summary: `${exporter} cannot write to its store`,
    description:
      '{{ $value | humanize }} writes to the store failed in the last 15 minutes. The data waits in the ring and ' +
      'is written again; when the ring is full, records are lost.',
    panel: { dashboard: 'pipeline', title: 'Failed writes' },
  },
  {
    name: 'Ring2UploadsFailing',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression: failingUploads(),
    summary: `${exporter} cannot upload to its bucket: {{ $labels.error_type }}`,
    description:
      '{{ $value | humanize }} uploads failed in the last 15 minutes, by the reason {{ $labels.error_type }}. The ' +
      'files wait in the spool and are sent again; nothing is lost while it has room.',
    panel: { dashboard: 'pipeline', title: 'Failed uploads' },
  },
  {
    name: 'Ring2UploadQueueFilling',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression:
      `${aggregate('sum', byInstance, select(metrics.storeUploadPendingSize))} / ` +
      `${aggregate('sum', byInstance, select(metrics.storeUploadPendingLimit))} >= ` +
      `${thresholds.uploadQueue.critical}`,
    forDuration: '5m',
    summary: `The upload queue of ${exporter} fills`,
    description:
      '{{ $value | humanizePercentage }} of what may wait for its upload waits. At the bound nothing more is taken ' +
      'from the rings; when they are full, records are lost.',
    panel: { dashboard: 'pipeline', title: 'Upload queue' },
  },
  {
    name: 'Ring2SpansLost',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression: grew(metrics.exportLostSpans, [...byExporter, 'error.type'], {}, window),
    summary: `${exporter} loses spans: {{ $labels.error_type }}`,
    description:
      '{{ $value | humanize }} spans were lost in the last 15 minutes, by the reason {{ $labels.error_type }}. ' +
      'Metrics and stored tensors do not depend on them.',
    panel: { dashboard: 'pipeline', title: 'Spans lost' },
  },
  {
    name: 'Ring2SamplesRefused',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression: grew(metrics.refusedSamples, ['gen_ai.request.model'], {}, window),
    summary: `{{ $labels.${openMetricsLabel('gen_ai.request.model')} }} has too many series`,
    description:
      '{{ $value | humanize }} samples found no room in the metrics in the last 15 minutes, because their model has ' +
      'more series than the exporter keeps. What is shown of it is not all.',
    panel: { dashboard: 'pipeline', title: 'Samples that found no room' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2ExporterDown',
    group: 'ring2-pipeline',
    severity: 'ticket',
    expression: goneInstances(),
    forDuration: '5m',
    summary: `${exporter} is gone`,
    description:
      'The instance {{ $labels.instance }} sent metrics within the last 6 hours and sends none now. Models go on unharmed; their rings fill, and then ' +
      'captures are lost. No other alert can be raised for this exporter.',
    panel: { dashboard: 'pipeline', title: 'Requests that run' },
  },
]
