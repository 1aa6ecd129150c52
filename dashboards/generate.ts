/**
 * Writes what is made of the registry of signals for the tools around: Grafana's dashboards, alert rules
 * for Prometheus and Grafana, the heads of the runbooks. With `--check` it writes nothing and fails when
 * one of them is stale.
 */
import { join } from 'node:path'
import { staleAmong, writeOrCheck } from '../exporter/telemetry/generated-files.ts'
import { grafanaRules } from './alerts/grafana-rules.ts'
import { prometheusRules } from './alerts/prometheus-rules.ts'
import { runbooks } from './alerts/runbooks.ts'
import { dashboardsByName } from './dashboards.ts'

/** Path from the repository's root → content. */
export function generatedFiles(root: string): ReadonlyMap<string, string> {
  const dashboards = dashboardsByName()
  const files = Object.entries(dashboards).map(([name, dashboard]): [string, string] => [
    `dashboards/${name}.json`,
    `${JSON.stringify(dashboard, null, 2)}\n`,
  ])
  return new Map([
    ...files,
    ['otel-config/prometheus/rules/ring2.rules.yaml', prometheusRules(dashboards)],
    ['otel-config/grafana/provisioning/alerting/ring2.yaml', grafanaRules(dashboards)],
    ...runbooks(root),
  ])
}

/** Generated files whose content on disk is another, or that are missing. */
export function staleFiles(root: string): string[] {
  return staleAmong(generatedFiles(root), root)
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '..')
  process.exitCode = writeOrCheck(generatedFiles(root), root, process.argv.slice(2))
}
