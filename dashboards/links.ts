/**
 * Ways from a panel to elsewhere: the other dashboards, the trace in the exporter's explorer. The
 * way from an exemplar to Jaeger is a setting of the Prometheus data source.
 */
import type { Builder } from '@grafana/grafana-foundation-sdk/cog'
import type { DataSourceRef } from '@grafana/grafana-foundation-sdk/common'
import {
  type DashboardLink,
  DashboardLinkBuilder,
  DashboardLinkType,
  type DynamicConfigValue,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { openMetricsLabel } from '../exporter/telemetry/prometheus-names.ts'
import type { Query } from './promql.ts'

/** Stable ids, part of the dashboards' addresses. */
export const dashboardUids = {
  overview: 'ring2-overview',
  model: 'ring2-model',
  pipeline: 'ring2-pipeline',
} as const

export type DashboardName = keyof typeof dashboardUids

export const dashboardTag = 'ring2'

/** Whatever Prometheus the dashboard's variable names. */
export const datasource: DataSourceRef = { type: 'prometheus', uid: `\${datasource}` }

const model = openMetricsLabel('gen_ai.request.model')

/** To the drill-down of a series' model, where series have one. */
export function modelLink(queries: readonly Query[]): Builder<DashboardLink>[] {
  if (!queries.every(({ expr }) => expr.includes(`by (${model}`))) return []
  const query = `var-model=\${__field.labels.${model}}&\${__url_time_range}`
  return [
    new DashboardLinkBuilder('Open this model')
      .type(DashboardLinkType.Link)
      .url(`/d/${dashboardUids.model}?${query}`),
  ]
}

/** On an exemplar's trace id: its tokens, norms and attention in the explorer. */
export function traceLinks(): DynamicConfigValue[] {
  const url = `\${exporter}/t/\${__value.raw}`
  return [{ id: 'links', value: [{ title: 'Explore this trace', url, targetBlank: true }] }]
}

/** At the top of each dashboard: the others, and the exporter's own page. */
export function topLinks(): Builder<DashboardLink>[] {
  const links = [
    new DashboardLinkBuilder('ring2')
      .type(DashboardLinkType.Dashboards)
      .tags([dashboardTag])
      .keepTime(true)
      .includeVars(true),
    new DashboardLinkBuilder('Stored traces')
      .type(DashboardLinkType.Link)
      .url(`\${exporter}/`)
      .tooltip('Traces and tensors that the exporter keeps')
      .targetBlank(true),
  ]
  return links.map((link) => ({ build: () => inView(link.build()) }))
}

/** The SDK puts links into a menu when nothing is said; without a place they are seen at once. */
function inView({ placement: _menu, ...link }: DashboardLink): DashboardLink {
  return link
}
