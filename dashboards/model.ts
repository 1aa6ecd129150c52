/** The drill-down: one model, layer by layer, with all of its statistics. */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../exporter/telemetry/registry.ts'
import { buildDashboard } from './layout.ts'
import { graph, layers, type PanelDraft } from './panels.ts'
import { aggregate, chosen, is, type Matchers, orderedByLayer, rate } from './promql.ts'
import { medianBy, medianByLayer, quantiles, samples, spreadByLayer } from './signal-panels.ts'
import { rateUnitOf } from './units.ts'
import {
  datasourceVariable,
  exporterVariable,
  hookVariable,
  layerVariable,
  oneModelVariable,
  phaseVariable,
} from './variables.ts'

const model: Matchers = { 'gen_ai.request.model': chosen('model') }
const phase: Matchers = { 'ring2.phase': chosen('phase') }
const hook: Matchers = { ...phase, 'ring2.hook': chosen('hook') }
const layer: Matchers = { 'ring2.layer': chosen('layer') }
const layerLegend = `{{${openMetricsLabel('ring2.layer')}}}`
const hookLegend = `{{${openMetricsLabel('ring2.hook')}}}`

const stream: readonly PanelDraft[] = [
  medianByLayer(metrics.l2Norm, {
    title: 'Norm, by layer',
    width: 12,
    matchers: hook,
    reading: 'Of the hook that is chosen above.',
  }),
  spreadByLayer(metrics.l2Norm, {
    title: 'Spread of the norm, by layer',
    width: 12,
    matchers: hook,
    reading: 'From the 10th to the 90th percentile: how different tokens are.',
  }),
  medianByLayer(metrics.layerGrowth, {
    title: 'Growth from layer to layer',
    width: 12,
    matchers: phase,
    reading: 'Above 1 the stream grows in this layer.',
  }),
  medianByLayer(metrics.layerCosineDistance, {
    title: 'Turn from layer to layer',
    width: 12,
    matchers: phase,
    reading: 'Near 0 the layer hardly changes the direction: it could be left out.',
  }),
  medianByLayer(metrics.kurtosis, {
    title: 'Kurtosis, by layer',
    width: 8,
    matchers: phase,
    reading: 'High where few channels carry most of the norm.',
  }),
  medianByLayer(metrics.outlierRatio, {
    title: 'Outliers, by layer',
    width: 8,
    matchers: phase,
    reading: 'Massive activations start at 100.',
  }),
  medianByLayer(metrics.nearZeroShare, {
    title: 'Elements near zero, by layer',
    width: 8,
    matchers: phase,
    reading: 'A rise means that channels die.',
  }),
  medianByLayer(metrics.branchContribution, {
    title: 'Share of the branches, by layer',
    width: 12,
    matchers: phase,
    reading: 'Attention and MLP together; how much each adds to the stream.',
  }),
  layers({
    title: 'Massive activations, by layer',
    description: metrics.tensorMassive.help,
    unit: rateUnitOf(metrics.tensorMassive),
    width: 12,
    query: {
      expr: orderedByLayer(aggregate('sum', ['ring2.layer'], rate(metrics.tensorMassive, model))),
      legend: layerLegend,
    },
  }),
]

const attention: readonly PanelDraft[] = [
  medianByLayer(metrics.attentionEntropy, {
    title: 'Attention entropy, by layer',
    width: 12,
    matchers: phase,
    reading: 'Low is normal where the sink takes most of the attention.',
  }),
  medianByLayer(metrics.attentionEntropyNoSink, {
    title: 'Attention entropy without the sink, by layer',
    width: 12,
    matchers: phase,
    reading: 'What the heads do with the attention that the sink leaves.',
  }),
  spreadByLayer(metrics.attentionEntropyNoSink, {
    title: 'Spread of the heads, by layer',
    width: 12,
    matchers: phase,
    reading:
      'From the 10th to the 90th percentile of heads and queries: small where all heads do the same.',
  }),
  medianByLayer(metrics.attentionCollapsedHeads, {
    title: 'Collapsed heads, by layer',
    width: 12,
    matchers: phase,
    reading: 'Compare with the same model’s usual picture.',
  }),
  medianByLayer(metrics.attentionSinkMass, {
    title: 'Attention sink, by layer',
    width: 12,
    matchers: phase,
    reading: 'Strong from the first layers on in most models.',
  }),
  medianByLayer(metrics.attentionSinkMass4, {
    title: 'Attention on the first four tokens, by layer',
    width: 12,
    matchers: phase,
    reading: 'Some models spread their sink over several tokens.',
  }),
  ...[
    quantiles(metrics.attentionTopKeyMass, {
      title: 'Most attended key',
      width: 8,
      reading: 'The key may be another one than the first.',
    }),
    quantiles(metrics.attentionPreviousTokenMass, {
      title: 'Attention to the token before',
      width: 8,
      matchers: phase,
      reading: 'High in previous-token heads.',
    }),
    quantiles(metrics.attentionSelfMass, {
      title: 'Attention to itself',
      width: 8,
      matchers: phase,
      reading: 'High where a head has nothing to fetch.',
    }),
    quantiles(metrics.attentionRecencyMass, {
      title: 'Attention to the last 16 tokens',
      width: 12,
      matchers: phase,
      reading: 'Rising, the model forgets what is further back.',
    }),
    quantiles(metrics.attentionLookbackRatio, {
      title: 'Lookback',
      width: 12,
      reading: 'Falling, the model follows its own words more than the prompt.',
    }),
  ],
]

const confidence: readonly PanelDraft[] = [
  quantiles(metrics.logitsEntropy, {
    title: 'Entropy of the next token',
    width: 8,
    matchers: phase,
    reading: 'Points are traces.',
  }),
  quantiles(metrics.logitsVarentropy, {
    title: 'Varentropy of the next token',
    width: 8,
    matchers: phase,
    reading: 'High where few tokens are likely and many are not impossible.',
  }),
  quantiles(metrics.logitsMargin, {
    title: 'Margin of the first over the second token',
    width: 8,
    matchers: phase,
    reading: 'Near 0 the choice is a coin toss.',
  }),
  quantiles(metrics.logitsTop1Probability, {
    title: 'Probability of the likeliest token',
    width: 8,
    matchers: phase,
    reading: 'The other side of the entropy.',
  }),
  quantiles(metrics.tokenSurprisal, {
    title: 'Surprisal of the tokens that came',
    width: 8,
    matchers: phase,
    shares: [0.5, 0.9, 0.99],
    reading: 'Of the prompt in prefill, of the answer in decode.',
  }),
  quantiles(metrics.requestRepetition, {
    title: 'Repetition',
    width: 8,
    shares: [0.5, 0.9],
    reading: 'Near 1 the model says the same again and again.',
  }),
]

const representation: readonly PanelDraft[] = [
  medianByLayer(metrics.tokenCosineDistance, {
    title: 'Difference of the tokens, by layer',
    width: 8,
    matchers: phase,
    reading: 'Near 0 all tokens look alike: the representation has collapsed.',
  }),
  medianByLayer(metrics.rankResidual, {
    title: 'Rank residual, by layer',
    width: 8,
    matchers: phase,
    reading: 'Near 0 the hidden states have rank one.',
  }),
  medianByLayer(metrics.participationRatio, {
    title: 'Effective dimensions, by layer',
    width: 8,
    reading: 'Of at most 64.',
  }),
]

const cache: readonly PanelDraft[] = [
  medianBy(metrics.kvTokenOutlier, 'ring2.hook', {
    title: 'Outlier tokens of keys and values',
    width: 8,
    reading: 'High ratios make quantised caches lose precision.',
  }),
  medianBy(metrics.kvChannelOutlier, 'ring2.hook', {
    title: 'Outlier channels of keys and values',
    width: 8,
    reading: 'Keys have channel outliers in most models.',
  }),
  medianBy(metrics.kvFirstTokenRatio, 'ring2.hook', {
    title: 'Norm of the first token’s key and value',
    width: 8,
    reading: 'The sink’s value is small where it takes attention without adding anything.',
  }),
]

const router: readonly PanelDraft[] = [
  medianByLayer(metrics.routerEntropy, {
    title: 'Router entropy, by layer',
    width: 8,
    matchers: phase,
    reading: 'Empty for models without experts. At 1 the router does not choose.',
  }),
  medianByLayer(metrics.expertEntropy, {
    title: 'Entropy of the chosen experts’ weights, by layer',
    width: 8,
    matchers: phase,
    reading: 'Near 0 one expert does the work.',
  }),
  medianByLayer(metrics.expertMaxViolation, {
    title: 'Busiest expert, by layer',
    width: 8,
    reading: '0 is a perfect balance.',
  }),
  medianByLayer(metrics.expertLoadVariation, {
    title: 'Variation of the experts’ loads, by layer',
    width: 8,
    reading: '0 is a perfect balance.',
  }),
  medianByLayer(metrics.expertLoadEntropy, {
    title: 'Entropy of the experts’ loads, by layer',
    width: 8,
    reading: '1 is a perfect balance.',
  }),
  medianByLayer(metrics.expertDeadShare, {
    title: 'Dead experts, by layer',
    width: 8,
    reading: 'Above 0 a part of the model is not used by this traffic.',
  }),
]

const distributions: readonly PanelDraft[] = [
  samples(metrics.l2Norm, {
    title: 'Distribution of the norm',
    width: 12,
    matchers: { ...hook, ...layer },
    reading: 'Of the hook and the layers that are chosen above.',
  }),
  samples(metrics.attentionEntropyNoSink, {
    title: 'Distribution of the attention entropy without the sink',
    width: 12,
    matchers: { ...phase, ...layer },
    reading: 'Of the layers that are chosen above; heads that differ show as several bands.',
  }),
]

const measured: readonly PanelDraft[] = [
  graph({
    title: 'Elements measured',
    description: `${metrics.tensorElements.help} By hook.`,
    unit: rateUnitOf(metrics.tensorElements),
    width: 12,
    min: 0,
    queries: [
      {
        expr: aggregate('sum', ['ring2.hook'], rate(metrics.tensorElements, model)),
        legend: hookLegend,
      },
    ],
  }),
  graph({
    title: 'Rows without statistics',
    description: `${metrics.tensorInvalidRows.help} By hook.`,
    unit: rateUnitOf(metrics.tensorInvalidRows),
    width: 12,
    min: 0,
    queries: [
      {
        expr: aggregate('sum', ['ring2.hook'], rate(metrics.tensorInvalidRows, model)),
        legend: hookLegend,
      },
    ],
  }),
  layers({
    title: 'NaN, by layer',
    description: `${metrics.tensorNonfinite.help} Here the NaN of all hooks: the lowest layer that has them is where they begin.`,
    unit: rateUnitOf(metrics.tensorNonfinite),
    width: 24,
    query: {
      expr: orderedByLayer(
        aggregate(
          'sum',
          ['ring2.layer'],
          rate(metrics.tensorNonfinite, { ...model, 'ring2.nonfinite.kind': is('nan') }),
        ),
      ),
      legend: layerLegend,
    },
  }),
]

export function modelDashboard(): Dashboard {
  return buildDashboard({
    name: 'model',
    title: 'ring2 / Model',
    description: 'One model layer by layer: colours are medians, layers run upwards.',
    variables: [
      datasourceVariable,
      oneModelVariable,
      phaseVariable,
      hookVariable,
      layerVariable,
      exporterVariable,
    ],
    rows: [
      { title: 'Residual stream', panels: stream },
      { title: 'Attention', panels: attention },
      { title: 'Confidence', panels: confidence },
      { title: 'Representation', panels: representation },
      { title: 'Keys and values', panels: cache },
      { title: 'Mixture of experts', panels: router },
      { title: 'Distributions', panels: distributions },
      { title: 'What was measured', panels: measured },
    ],
  })
}
