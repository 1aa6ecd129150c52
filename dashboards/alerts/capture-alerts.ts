/**
 * Alerts on captures that are missing or damaged. What is not seen must not look healthy: requests without
 * evidence are outside the objective, so they have alerts of their own.
 */
import { openMetricsLabel } from '../../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../../exporter/telemetry/registry.ts'
import { thresholds } from '../../exporter/telemetry/thresholds.ts'
import {
  aggregate,
  type Grouping,
  grew,
  increase,
  is,
  isNot,
  type Matchers,
  select,
} from '../promql.ts'
import type { Alert } from './alert.ts'

const byModel = ['gen_ai.request.model'] as const
const model = `{{ $labels.${openMetricsLabel('gen_ai.request.model')} }}`
const segment = `{{ $labels.${openMetricsLabel('ring2.segment')} }}`
const onHost: readonly Grouping[] = ['ring2.segment', 'host_name']
const window = '15m'

/** Share of the requests that ended in an hour, where there were enough of them. */
function share(matchers: Matchers, limit: number): string {
  const those = aggregate('sum', byModel, increase(metrics.requests, matchers, '1h'))
  const ended = aggregate('sum', byModel, increase(metrics.requests, {}, '1h'))
  return [`${those} / (${ended} > 0) > ${limit}`, `${those} >= 2`, `${ended} >= 5`].join('\nand ')
}

export const captureAlerts: readonly Alert[] = [
  {
    name: 'Ring2CaptureCorrupt',
    group: 'ring2-capture',
    severity: 'page',
    expression: grew(metrics.captureLostRecords, onHost, { 'error.type': is('corrupt') }, window),
    summary: `Records of segment ${segment} are corrupt`,
    description:
      `{{ $value | humanize }} records of segment ${segment} on {{ $labels.host_name }} failed a check in the last ` +
      '15 minutes. Something writes what the exporter cannot read; verdicts may rest on damaged data.',
    panel: { dashboard: 'pipeline', title: 'Records lost' },
    variable: 'ring2_segment',
  },
  {
    name: 'Ring2VerdictsMissing',
    group: 'ring2-capture',
    severity: 'ticket',
    expression: share({ 'ring2.verdict': is('unknown') }, thresholds.unknownShare.critical),
    forDuration: '10m',
    summary: `Requests of ${model} have no verdict`,
    description:
      `{{ $value | humanizePercentage }} of the requests of ${model} in the last hour have the verdict unknown: ` +
      'evidence is missing, and nobody can say that the model is well.',
    panel: { dashboard: 'overview', title: 'Requests without a verdict' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2CapturesIncomplete',
    group: 'ring2-capture',
    severity: 'ticket',
    expression: share(
      { 'ring2.completeness': is('incomplete') },
      thresholds.incompleteShare.critical,
    ),
    forDuration: '10m',
    summary: `Captures of ${model} are incomplete`,
    description:
      `Of {{ $value | humanizePercentage }} of the requests of ${model} in the last hour something that they called ` +
      'for was not captured.',
    panel: { dashboard: 'pipeline', title: 'Completeness' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2CapturesStopped',
    group: 'ring2-capture',
    severity: 'ticket',
    expression: [
      `(${aggregate('sum', byModel, increase(metrics.requests, {}, window))} > 0 unless ` +
        `${aggregate('sum', byModel, increase(metrics.tensorElements, {}, window))} > 0)`,
      `(${aggregate('sum', ['service_name', 'host_name'], select(metrics.requestActive))} > 0 unless ` +
        `${aggregate('sum', ['service_name', 'host_name'], increase(metrics.captureRecords, {}, window))} > 0)`,
    ].join('\nor '),
    forDuration: window,
    summary: `Requests go on and nothing is captured`,
    description:
      // The two sides have no label in common that a text could name.
      '{{ $value | humanize }} requests ended, or are still open, and not one tensor of theirs has come for ' +
      '15 minutes. The labels name the model of those that ended, or the host of those that are open.',
    panel: { dashboard: 'pipeline', title: 'Records captured' },
  },
  {
    name: 'Ring2CaptureLosses',
    group: 'ring2-capture',
    severity: 'ticket',
    expression: grew(
      metrics.captureLostRecords,
      [...onHost, 'error.type'],
      // One record per dead producer is no loss that anybody could mend; corruption is a page.
      { 'error.type': isNot('corrupt', 'producer_died') },
      window,
    ),
    summary: `Records of segment ${segment} are lost: {{ $labels.error_type }}`,
    description:
      `{{ $value | humanize }} records of segment ${segment} on {{ $labels.host_name }} were lost in the last ` +
      '15 minutes, by the reason {{ $labels.error_type }}.',
    panel: { dashboard: 'pipeline', title: 'Records lost' },
    variable: 'ring2_segment',
  },
  {
    name: 'Ring2RingFull',
    group: 'ring2-capture',
    severity: 'ticket',
    expression:
      `${aggregate('sum', [...onHost, 'ring2.ring.kind'], select(metrics.ringUsage))} / ` +
      `${aggregate('sum', [...onHost, 'ring2.ring.kind'], select(metrics.ringLimit))} > ` +
      `${thresholds.ringOccupancy.critical}`,
    forDuration: '5m',
    summary: `A ring of segment ${segment} is nearly full`,
    description:
      `The {{ $labels.${openMetricsLabel('ring2.ring.kind')} }} ring of segment ${segment} on {{ $labels.host_name }} ` +
      'has been full to {{ $value | humanizePercentage }} for 5 minutes. When it is full, records are lost.',
    panel: { dashboard: 'pipeline', title: 'Ring occupancy' },
    variable: 'ring2_segment',
  },
  {
    name: 'Ring2ExportLagHigh',
    group: 'ring2-capture',
    severity: 'ticket',
    expression: `${aggregate('max', onHost, select(metrics.exportLag))} > ${thresholds.lagSeconds.critical}`,
    forDuration: '5m',
    summary: `The exporter lags behind segment ${segment}`,
    description:
      `The oldest record of segment ${segment} on {{ $labels.host_name }} has waited for ` +
      '{{ $value | humanizeDuration }}: draining or storing does not keep up.',
    panel: { dashboard: 'pipeline', title: 'Lag' },
    variable: 'ring2_segment',
  },
]
