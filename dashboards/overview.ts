/** The first dashboard: do the models keep their objective, and what do they look like inside. */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import type { Verdict } from '../collector/records.ts'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../exporter/telemetry/registry.ts'
import { burnRates, serviceLevelObjective, thresholds } from '../exporter/telemetry/thresholds.ts'
import { buildDashboard } from './layout.ts'
import { figure, graph, type PanelDraft } from './panels.ts'
import { aggregate, chosen, increase, is, isNot, type Matchers, rate } from './promql.ts'
import { medianByLayer, quantiles } from './signal-panels.ts'
import { countUnit, rateUnitOf, shareUnit } from './units.ts'
import { datasourceVariable, exporterVariable, modelVariable } from './variables.ts'

const byModel = ['gen_ai.request.model'] as const
const model: Matchers = { 'gen_ai.request.model': chosen('model') }
const modelLegend = `{{${openMetricsLabel('gen_ai.request.model')}}}`

const goodShare = (window: string): string =>
  `${aggregate('sum', byModel, increase(metrics.sliGood, model, window))} / ` +
  `${aggregate('sum', byModel, increase(metrics.sliValid, model, window))}`

const burn = (window: string): string =>
  `(1 - ${goodShare(window)}) / ${Number((1 - serviceLevelObjective).toFixed(6))}`

const objectiveText = `The objective is ${serviceLevelObjective * 100} %.`

const verdictColours: Readonly<Record<Verdict, string>> = {
  ok: 'green',
  unknown: 'text',
  high_entropy: 'yellow',
  low_entropy: 'orange',
  looping: 'purple',
  collapsed: 'red',
  nonfinite: 'dark-red',
}

const serviceLevel: readonly PanelDraft[] = [
  figure({
    title: 'Good requests',
    description: `Requests with the verdict ok, of those with any verdict but unknown, over the time range. ${objectiveText}`,
    unit: shareUnit,
    width: 6,
    decimals: 2,
    falling: true,
    levels: { warning: serviceLevelObjective, critical: 0.9 },
    query: { expr: goodShare('$__range'), legend: modelLegend },
  }),
  figure({
    title: 'Error budget burn, last hour',
    description: `How many times faster than sustainable bad requests use up the error budget: at 1 it lasts 30 days, at ${burnRates.fast.factor} two days. ${objectiveText}`,
    unit: 'suffix:×',
    width: 6,
    decimals: 1,
    levels: { warning: burnRates.long.factor, critical: burnRates.fast.factor },
    query: { expr: burn('1h'), legend: modelLegend },
  }),
  figure({
    title: 'Requests without a verdict',
    description:
      'Share of the requests that ended in the time range whose verdict is unknown, because evidence was missing. They count neither as good nor as bad.',
    unit: shareUnit,
    width: 6,
    decimals: 1,
    levels: thresholds.unknownShare,
    query: {
      expr:
        `(${aggregate('sum', byModel, increase(metrics.requests, { ...model, 'ring2.verdict': is('unknown') }, '$__range'))} ` +
        `or ${aggregate('sum', byModel, increase(metrics.requests, model, '$__range'))} * 0) / ` +
        `${aggregate('sum', byModel, increase(metrics.requests, model, '$__range'))}`,
      legend: modelLegend,
    },
  }),
  figure({
    title: 'Values that are no numbers',
    description:
      'NaN and +∞ elements that were measured in the time range. A healthy model has none; −∞ is how masks are written, and is not counted here.',
    unit: countUnit,
    width: 6,
    decimals: 0,
    levels: { warning: 1, critical: 1 },
    query: {
      expr: aggregate(
        'sum',
        byModel,
        increase(
          metrics.tensorNonfinite,
          { ...model, 'ring2.nonfinite.kind': isNot('negative_infinity') },
          '$__range',
        ),
      ),
      legend: modelLegend,
    },
  }),
  graph({
    title: 'Error budget burn',
    description: `Burn rate over each window of the alerts: pages at ${burnRates.fast.factor} over ${burnRates.fast.longWindow} and at ${burnRates.slow.factor} over ${burnRates.slow.longWindow}. ${objectiveText}`,
    unit: 'suffix:×',
    width: 12,
    min: 0,
    levels: { warning: burnRates.slow.factor, critical: burnRates.fast.factor },
    queries: ['5m', '1h', '6h'].map((window) => ({
      expr: burn(window),
      legend: `${modelLegend} ${window}`,
    })),
  }),
  graph({
    title: 'Verdicts',
    description: `${metrics.requests.help} What the statistics say of each; unknown where evidence is missing.`,
    unit: rateUnitOf(metrics.requests),
    width: 12,
    stacked: true,
    min: 0,
    colours: verdictColours,
    queries: [
      {
        expr: aggregate('sum', ['ring2.verdict'], rate(metrics.requests, model)),
        legend: `{{${openMetricsLabel('ring2.verdict')}}}`,
      },
    ],
  }),
]

const confidence: readonly PanelDraft[] = [
  quantiles(metrics.logitsEntropy, {
    title: 'Entropy of the next token',
    width: 12,
    reading:
      'Near 0 the model is certain of every token, as when it repeats itself; rising, it loses the thread. Points are traces: open one.',
  }),
  quantiles(metrics.tokenSurprisal, {
    title: 'Surprisal of the tokens that came',
    width: 12,
    shares: [0.5, 0.9, 0.99],
    reading: 'Prompts are included: text that the model has not seen the like of is surprising.',
  }),
  quantiles(metrics.requestRepetition, {
    title: 'Repetition',
    width: 12,
    shares: [0.5, 0.9],
    reading: 'Near 1 the model says the same again and again.',
  }),
  quantiles(metrics.logitsTop1Probability, {
    title: 'Probability of the likeliest token',
    width: 12,
    reading: 'The other side of the entropy, easier to imagine.',
  }),
]

const inside: readonly PanelDraft[] = [
  medianByLayer(metrics.l2Norm, {
    title: 'Norm of the residual stream, by layer',
    width: 12,
    matchers: { 'ring2.hook': is('resid_pre') },
    reading: 'It grows with depth; a stripe that changes with time is a layer that changed.',
  }),
  medianByLayer(metrics.attentionEntropyNoSink, {
    title: 'Attention entropy without the sink, by layer',
    width: 12,
    reading: 'Near 0 the heads look at single tokens. Compare with the same model’s usual picture.',
  }),
  quantiles(metrics.attentionSinkMass, {
    title: 'Attention sink',
    width: 8,
    reading: 'A strong sink is normal; its loss is a sign of degeneration, too.',
  }),
  quantiles(metrics.attentionCollapsedHeads, {
    title: 'Collapsed heads',
    width: 8,
    shares: [0.5, 0.9],
    reading: 'A level is normal for each model; a step is not.',
  }),
  graph({
    title: 'Elements that are no finite numbers',
    description: `${metrics.tensorNonfinite.help} By hook and kind; masked attention scores are −∞ by design.`,
    unit: rateUnitOf(metrics.tensorNonfinite),
    width: 8,
    min: 0,
    queries: [
      {
        expr: aggregate(
          'sum',
          ['ring2.hook', 'ring2.nonfinite.kind'],
          rate(metrics.tensorNonfinite, model),
        ),
        legend: `{{${openMetricsLabel('ring2.hook')}}} {{${openMetricsLabel('ring2.nonfinite.kind')}}}`,
      },
    ],
  }),
]

export function overviewDashboard(): Dashboard {
  return buildDashboard({
    name: 'overview',
    title: 'ring2 / Overview',
    description:
      'What models do inside: the service level, confidence, norms and attention. Points on the lines are traces.',
    variables: [datasourceVariable, modelVariable, exporterVariable],
    rows: [
      { title: 'Service level', panels: serviceLevel },
      { title: 'Confidence', panels: confidence },
      { title: 'Inside the model', panels: inside },
    ],
  })
}
