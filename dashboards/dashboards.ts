/** The dashboards that are shipped. */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import type { DashboardName } from './links.ts'
import { modelDashboard } from './model.ts'
import { overviewDashboard } from './overview.ts'
import { pipelineDashboard } from './pipeline.ts'

/** By the names of their files, without `.json`. */
export function dashboardsByName(): Readonly<Record<DashboardName, Dashboard>> {
  return {
    overview: overviewDashboard(),
    model: modelDashboard(),
    pipeline: pipelineDashboard(),
  }
}
