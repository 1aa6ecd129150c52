/**
 * Writes what is made of the registry of signals for the tools around: Grafana's dashboards, alert rules
 * for Prometheus and Grafana, the heads of the runbooks. With `--check` it writes nothing and fails when
 * one of them is stale.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
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
  return [...generatedFiles(root)]
    .filter(([path, content]) => contentOf(join(root, path)) !== content)
    .map(([path]) => path)
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

function main(arguments_: readonly string[]): number {
  const root = join(import.meta.dirname, '..')
  const stale = staleFiles(root)
  if (arguments_.includes('--check')) {
    for (const path of stale) process.stderr.write(`stale: ${path}; run npm run gen\n`)
    return stale.length === 0 ? 0 : 1
  }
  const files = generatedFiles(root)
  for (const path of stale) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), files.get(path) ?? '')
    process.stderr.write(`written: ${path}\n`)
  }
  return 0
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2))
