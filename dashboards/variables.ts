/** The dashboards' variables. Their choices are read from Prometheus, from labels of the registry. */
import type { Builder } from '@grafana/grafana-foundation-sdk/cog'
import {
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  TextBoxVariableBuilder,
  type VariableModel,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard'
import type { MetricAttribute, MetricDefinition } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../exporter/telemetry/registry.ts'
import { datasource } from './links.ts'
import { chosen, type Matchers, select } from './promql.ts'

interface Choice {
  readonly name: string
  readonly label: string
  readonly description: string
  readonly metric: MetricDefinition
  readonly attribute: MetricAttribute
  readonly matchers?: Matchers
  /** One value at a time; all of them when left out. */
  readonly single?: string
  readonly sort?: VariableSort
}

export const datasourceVariable: Builder<VariableModel> = new DatasourceVariableBuilder(
  'datasource',
)
  .label('Data source')
  .description('The Prometheus that holds the metrics of ring2-exporter.')
  .type('prometheus')

export const exporterVariable: Builder<VariableModel> = new TextBoxVariableBuilder('exporter')
  .label('Exporter')
  .description('Address of the exporter’s API as the browser reaches it, for links to tensors.')
  .defaultValue('http://127.0.0.1:9464')

const model: Choice = {
  name: 'model',
  label: 'Model',
  description: 'Model name as the producer gave it.',
  metric: metrics.sliValid,
  attribute: 'gen_ai.request.model',
}

export const modelVariable = query(model)

/** The drill-down shows one model: values of two models have no common meaning. */
export const oneModelVariable = query({ ...model, single: '' })

export const segmentVariable = query({
  name: 'segment',
  label: 'Segment',
  description: 'Shared-memory segment: one per producing process.',
  metric: metrics.captureRecords,
  attribute: 'ring2.segment',
})

export const hookVariable = query({
  name: 'hook',
  label: 'Hook',
  description: 'Where in the model the tensor was taken; used by the panels of norms.',
  metric: metrics.l2Norm,
  attribute: 'ring2.hook',
  matchers: { 'gen_ai.request.model': chosen('model') },
  single: 'resid_pre',
})

export const layerVariable = query({
  name: 'layer',
  label: 'Layer',
  description: 'Layers that the panels of distributions draw.',
  metric: metrics.l2Norm,
  attribute: 'ring2.layer',
  matchers: { 'gen_ai.request.model': chosen('model') },
  sort: VariableSort.NumericalAsc,
})

export const phaseVariable = query({
  name: 'phase',
  label: 'Phase',
  description: 'Prefill reads the prompt, decode writes the answer.',
  metric: metrics.l2Norm,
  attribute: 'ring2.phase',
  matchers: { 'gen_ai.request.model': chosen('model') },
})

function query(choice: Choice): Builder<VariableModel> {
  const series = select(choice.metric, choice.matchers)
  const text = `label_values(${series}, ${openMetricsLabel(choice.attribute)})`
  const builder = new QueryVariableBuilder(choice.name)
    .label(choice.label)
    .description(choice.description)
    .datasource(datasource)
    .query(text)
    .definition(text)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(choice.sort ?? VariableSort.AlphabeticalAsc)
  if (choice.single === undefined) {
    const all = { selected: true, text: ['All'], value: ['$__all'] }
    return builder.multi(true).includeAll(true).allValue('.*').current(all)
  }
  if (choice.single === '') return builder
  return builder.current({ selected: true, text: choice.single, value: choice.single })
}
