/** Panels of a folded statistic: quantiles over time, layers over time, the whole distribution. */
import type { MetricAttribute, MetricDefinition } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import { distribution, graph, layers, type PanelDraft } from './panels.ts'
import { aggregate, chosen, type Matchers, orderedByLayer, quantile, rate } from './promql.ts'
import { unitOf } from './units.ts'

export interface SignalPanel {
  readonly title: string
  readonly width: number
  /** How to read it; after the registry's definition. */
  readonly reading: string
  readonly matchers?: Matchers
}

const model = { 'gen_ai.request.model': chosen('model') } as const

/** Quantiles of all layers together, per model; with the traces of notable samples. */
export function quantiles(
  metric: MetricDefinition,
  panel: SignalPanel & { readonly shares?: readonly number[] },
): PanelDraft {
  const matchers = { ...model, ...panel.matchers }
  const label = openMetricsLabel('gen_ai.request.model')
  return graph({
    title: panel.title,
    description: `${metric.help} ${panel.reading}`,
    unit: unitOf(metric),
    width: panel.width,
    exemplars: true,
    queries: (panel.shares ?? [0.1, 0.5, 0.9]).map((share) => ({
      expr: quantile(share, metric, ['gen_ai.request.model'], matchers),
      legend: `{{${label}}} ${percentile(share)}`,
    })),
  })
}

function percentile(share: number): string {
  return `p${Math.round(share * 100)}`
}

/** The median of each layer. */
export function medianByLayer(metric: MetricDefinition, panel: SignalPanel): PanelDraft {
  return byLayer(metric, panel, (matchers) => quantile(0.5, metric, ['ring2.layer'], matchers))
}

/** How far apart the samples of a layer are: its heads, tokens or requests. */
export function spreadByLayer(metric: MetricDefinition, panel: SignalPanel): PanelDraft {
  return byLayer(metric, panel, (matchers) => {
    const of = (share: number): string => quantile(share, metric, ['ring2.layer'], matchers)
    return `${of(0.9)} - ${of(0.1)}`
  })
}

function byLayer(
  metric: MetricDefinition,
  panel: SignalPanel,
  expression: (matchers: Matchers) => string,
): PanelDraft {
  return layers({
    title: panel.title,
    description: `${metric.help} ${panel.reading}`,
    unit: unitOf(metric),
    width: panel.width,
    query: {
      expr: orderedByLayer(expression({ ...model, ...panel.matchers })),
      legend: `{{${openMetricsLabel('ring2.layer')}}}`,
    },
  })
}

/** Every sample of the window. */
export function samples(metric: MetricDefinition, panel: SignalPanel): PanelDraft {
  const matchers = { ...model, ...panel.matchers }
  return distribution({
    title: panel.title,
    description: `${metric.help} ${panel.reading}`,
    unit: unitOf(metric),
    width: panel.width,
    query: { expr: aggregate('sum', [], rate(metric, matchers)), legend: '' },
  })
}

/** The median by an attribute other than the model. */
export function medianBy(
  metric: MetricDefinition,
  attribute: MetricAttribute,
  panel: SignalPanel,
): PanelDraft {
  return graph({
    title: panel.title,
    description: `${metric.help} ${panel.reading}`,
    unit: unitOf(metric),
    width: panel.width,
    exemplars: true,
    queries: [
      {
        expr: quantile(0.5, metric, [attribute], { ...model, ...panel.matchers }),
        legend: `{{${openMetricsLabel(attribute)}}}`,
      },
    ],
  })
}
