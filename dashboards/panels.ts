/**
 * The kinds of panels that the dashboards are made of: lines, layers over time, one figure, a
 * distribution over time. Each has a title, a description, a unit and the dashboard's data source;
 * which place it gets is layout.ts's.
 */
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog'
import {
  AxisPlacement,
  BigValueColorMode,
  BigValueGraphMode,
  GraphDrawStyle,
  HeatmapCellLayout,
  LegendDisplayMode,
  LegendPlacement,
  ReduceDataOptionsBuilder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common'
import {
  FieldColorBuilder,
  FieldColorModeId,
  type Panel,
  ThresholdsConfigBuilder,
  ThresholdsMode,
} from '@grafana/grafana-foundation-sdk/dashboard'
import {
  PanelBuilder as HeatmapBuilder,
  HeatmapColorMode,
  HeatmapColorOptionsBuilder,
  HeatmapTooltipBuilder,
  RowsHeatmapOptionsBuilder,
  YAxisConfigBuilder,
} from '@grafana/grafana-foundation-sdk/heatmap'
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus'
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat'
import { PanelBuilder as TimeseriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries'
import { datasource, modelLink, traceLinks } from './links.ts'
import type { Query } from './promql.ts'

export interface Levels {
  readonly warning: number
  readonly critical: number
}

export interface PanelOptions {
  readonly title: string
  readonly description: string
  /** One of Grafana's units. */
  readonly unit: string
  /** Columns of Grafana's 24. */
  readonly width: number
  readonly height?: number
}

export interface PanelDraft {
  readonly width: number
  readonly height: number
  readonly panel: Builder<Panel>
}

const defaultHeight = 8
const colours = { good: 'green', warning: 'orange', critical: 'red' } as const

export interface GraphOptions extends PanelOptions {
  readonly queries: readonly Query[]
  /** Shows the traces that notable samples came from. */
  readonly exemplars?: boolean
  readonly stacked?: boolean
  readonly min?: number
  readonly max?: number
  readonly levels?: Levels
  /** Series → colour, where a series means something good or bad. */
  readonly colours?: Readonly<Record<string, string>>
}

/** Lines, or stacked bars, over time. */
export function graph(options: GraphOptions): PanelDraft {
  const builder = new TimeseriesBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(datasource)
    .unit(options.unit)
    .targets(queriesOf(options.queries, options.exemplars ?? false))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true),
    )
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi))
    .fillOpacity(options.stacked ? 60 : 5)
    .showPoints(VisibilityMode.Auto)
    .dataLinks(modelLink(options.queries))
  if (options.stacked) {
    builder.drawStyle(GraphDrawStyle.Bars)
    builder.stacking(new StackingConfigBuilder().mode(StackingMode.Normal))
  }
  if (options.min !== undefined) builder.min(options.min)
  if (options.max !== undefined) builder.max(options.max)
  if (options.levels !== undefined) builder.thresholds(levelsOf(options.levels))
  if (options.exemplars) builder.overrideByName('trace_id', traceLinks())
  for (const [name, fixedColor] of Object.entries(options.colours ?? {})) {
    builder.overrideByName(name, [{ id: 'color', value: { mode: 'fixed', fixedColor } }])
  }
  return { width: options.width, height: options.height ?? defaultHeight, panel: builder }
}

export interface FigureOptions extends PanelOptions {
  readonly query: Query
  readonly levels?: Levels
  /** A smaller value is the worse one. */
  readonly falling?: boolean
  readonly decimals?: number
}

/** One figure per series, of the whole time range. */
export function figure(options: FigureOptions): PanelDraft {
  const builder = new StatBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(datasource)
    .unit(options.unit)
    .targets([targetOf(options.query, 0).instant()])
    .colorMode(BigValueColorMode.Value)
    .graphMode(BigValueGraphMode.None)
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']).values(false))
    .noValue('no data')
    .dataLinks(modelLink([options.query]))
  if (options.levels !== undefined) {
    builder.thresholds(levelsOf(options.levels, options.falling))
    builder.colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
  }
  if (options.decimals !== undefined) builder.decimals(options.decimals)
  return { width: options.width, height: options.height ?? 5, panel: builder }
}

export interface LayersOptions extends PanelOptions {
  /** One series per layer, ordered by their labels. */
  readonly query: Query
  readonly scheme?: string
}

/** Layers upwards, time to the right, the value as colour. */
export function layers(options: LayersOptions): PanelDraft {
  return heatmap(options, targetOf(options.query, 0).format(PromQueryFormat.TimeSeries), 'layer')
}

export interface DistributionOptions extends PanelOptions {
  /** A native histogram. */
  readonly query: Query
  readonly scheme?: string
}

/** Values upwards, time to the right, how many samples as colour. */
export function distribution(options: DistributionOptions): PanelDraft {
  return heatmap(
    options,
    targetOf(options.query, 0).format(PromQueryFormat.Heatmap).exemplar(true),
    undefined,
  )
}

function heatmap(
  options: LayersOptions,
  target: DataqueryBuilder,
  axisLabel: string | undefined,
): PanelDraft {
  const axis = new YAxisConfigBuilder().axisPlacement(AxisPlacement.Left)
  if (axisLabel === undefined) axis.unit(options.unit)
  else axis.axisLabel(axisLabel)
  const builder = new HeatmapBuilder()
    .title(options.title)
    .description(options.description)
    .datasource(datasource)
    .unit(options.unit)
    .targets([target])
    .calculate(false)
    .rowsFrame(new RowsHeatmapOptionsBuilder().layout(HeatmapCellLayout.Auto))
    .color(
      new HeatmapColorOptionsBuilder()
        .mode(HeatmapColorMode.Scheme)
        .scheme(options.scheme ?? 'Viridis')
        .steps(64),
    )
    .yAxis(axis)
    .tooltip(new HeatmapTooltipBuilder().mode(TooltipDisplayMode.Single).showColorScale(true))
    .showLegend()
  if (axisLabel === undefined) builder.overrideByName('trace_id', traceLinks())
  return { width: options.width, height: options.height ?? 10, panel: builder }
}

function queriesOf(queries: readonly Query[], exemplars: boolean): Builder<Dataquery>[] {
  return queries.map((query, index) => targetOf(query, index).range().exemplar(exemplars))
}

function targetOf(query: Query, index: number): DataqueryBuilder {
  return new DataqueryBuilder()
    .refId(String.fromCharCode('A'.charCodeAt(0) + index))
    .datasource(datasource)
    .expr(query.expr)
    .legendFormat(query.legend)
}

function levelsOf({ warning, critical }: Levels, falling = false): ThresholdsConfigBuilder {
  const steps = falling
    ? [
        { value: null, color: colours.critical },
        { value: critical, color: colours.warning },
        { value: warning, color: colours.good },
      ]
    : [
        { value: null, color: colours.good },
        { value: warning, color: colours.warning },
        { value: critical, color: colours.critical },
      ]
  return new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps)
}
