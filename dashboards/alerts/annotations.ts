/** What an alert tells whoever it wakes: the same for Prometheus and for Grafana. */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { type DashboardName, dashboardUids } from '../links.ts'
import { panelsOf } from '../lint.ts'
import { type Alert, runbookPath } from './alert.ts'

/** Where the shipped compose.yaml serves Grafana. */
const grafanaUrl = 'http://127.0.0.1:3000'

export type DashboardsByName = Readonly<Record<DashboardName, Dashboard>>

/** @throws TypeError when the alert names a panel that its dashboard lacks. */
export function panelId(alert: Alert, dashboards: DashboardsByName): number {
  const { dashboard, title } = alert.panel
  const panel = panelsOf(dashboards[dashboard]).find((one) => one.title === title)
  if (panel?.id === undefined) throw new TypeError(`${alert.name}: no panel ${title}`)
  return panel.id
}

export function annotationsOf(
  alert: Alert,
  dashboards: DashboardsByName,
): Readonly<Record<string, string>> {
  const variables = { gen_ai_request_model: 'model', ring2_segment: 'segment' } as const
  const { variable, panel } = alert
  const chosen =
    variable === undefined ? '' : `&var-${variables[variable]}={{ $labels.${variable} | urlquery }}`
  const view = `viewPanel=${panelId(alert, dashboards)}${chosen}`
  return {
    summary: alert.summary,
    description: alert.description,
    runbook_url: runbookPath(alert),
    dashboard_url: `${grafanaUrl}/d/${dashboardUids[panel.dashboard]}?${view}`,
  }
}

/** Labels that Alertmanager routes and groups by. */
export function labelsOf(alert: Alert): Readonly<Record<string, string>> {
  return { severity: alert.severity, area: alert.group.replace('ring2-', '') }
}
