/** Alerts on what models do: values that are no numbers, verdicts that shift, statistics that drift. */
import type { MetricDefinition } from '../../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel } from '../../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../../exporter/telemetry/registry.ts'
import { thresholds } from '../../exporter/telemetry/thresholds.ts'
import { aggregate, grew, increase, is, type Matchers } from '../promql.ts'
import type { Alert } from './alert.ts'

const byModel = ['gen_ai.request.model'] as const
const model = openMetricsLabel('gen_ai.request.model')
const name = `{{ $labels.${model} }}`

/** One day before is the baseline: the same time of day, so mostly the same kind of traffic. */
const baseline = '1d'
const driftWindow = '6h'
/** Below so many samples on either side a median moves by itself. */
const driftSamplesMin = 1000

function drift(metric: MetricDefinition, matchers: Matchers, limit: number): string {
  const now = aggregate('sum', byModel, increase(metric, matchers, driftWindow))
  const before = aggregate('sum', byModel, increase(metric, matchers, driftWindow, baseline))
  const median = (samples: string): string => `histogram_quantile(0.5, ${samples})`
  return [
    `abs(${median(now)} - ${median(before)}) / ${median(before)} > ${limit}`,
    `histogram_count(${now}) > ${driftSamplesMin}`,
    `histogram_count(${before}) > ${driftSamplesMin}`,
  ].join('\nand ')
}

const valid = aggregate('sum', byModel, increase(metrics.sliValid, {}, '1h'))
const entropyVerdicts = aggregate(
  'sum',
  byModel,
  increase(metrics.requests, { 'ring2.verdict': is('low_entropy', 'high_entropy') }, '1h'),
)

export const modelAlerts: readonly Alert[] = [
  {
    name: 'Ring2NonfiniteValues',
    group: 'ring2-model',
    severity: 'page',
    expression: [
      grew(metrics.requests, byModel, { 'ring2.verdict': is('nonfinite') }, '15m'),
      grew(
        metrics.tensorNonfinite,
        byModel,
        { 'ring2.nonfinite.kind': is('nan', 'positive_infinity') },
        '15m',
      ),
    ].join('\nor '),
    summary: `${name} computes values that are no numbers`,
    description:
      `In the last 15 minutes ${name} had {{ $value | humanize }} requests with NaN or infinite values, or, ` +
      'where no request could be judged, so many such elements. What it answered is not to be trusted.',
    panel: { dashboard: 'overview', title: 'Elements that are no finite numbers' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2EntropyVerdicts',
    group: 'ring2-model',
    severity: 'ticket',
    expression: [
      `${entropyVerdicts} / (${valid} > 0) > ${thresholds.entropyVerdictShare.critical}`,
      `${entropyVerdicts} >= 2`,
      `${valid} >= 20`,
    ].join('\nand '),
    forDuration: '10m',
    summary: `${name} is too certain, or too uncertain, in too many requests`,
    description:
      `{{ $value | humanizePercentage }} of the requests of ${name} in the last hour have the verdict low_entropy ` +
      'or high_entropy: their confidence lies outside what its baseline calls usual.',
    panel: { dashboard: 'overview', title: 'Verdicts' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2EntropyDrift',
    group: 'ring2-model',
    severity: 'ticket',
    expression: drift(
      metrics.logitsEntropy,
      { 'ring2.phase': is('decode') },
      thresholds.entropyDrift.critical,
    ),
    forDuration: '1h',
    summary: `The entropy of ${name} has drifted`,
    description:
      `The median entropy of the next token of ${name} over 6 hours differs by {{ $value | humanizePercentage }} ` +
      'from the same hours of the day before.',
    panel: { dashboard: 'overview', title: 'Entropy of the next token' },
    variable: 'gen_ai_request_model',
  },
  {
    name: 'Ring2NormDrift',
    group: 'ring2-model',
    severity: 'ticket',
    expression: drift(
      metrics.l2Norm,
      { 'ring2.hook': is('resid_final') },
      thresholds.normDrift.critical,
    ),
    forDuration: '1h',
    summary: `The hidden states of ${name} have drifted`,
    description:
      `The median norm of the final hidden state of ${name} over 6 hours differs by ` +
      '{{ $value | humanizePercentage }} from the same hours of the day before.',
    panel: { dashboard: 'overview', title: 'Norm of the residual stream, by layer' },
    variable: 'gen_ai_request_model',
  },
]
