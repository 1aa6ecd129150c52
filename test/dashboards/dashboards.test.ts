import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { describe, expect, test } from 'vitest'
import { dashboardsByName } from '../../dashboards/dashboards.ts'
import { readExpression } from '../../dashboards/expression.ts'
import { staleFiles } from '../../dashboards/generate.ts'
import { lintDashboard, panelsOf, queriesOf } from '../../dashboards/lint.ts'
import { prometheusName } from '../../exporter/telemetry/prometheus-names.ts'
import { allMetrics } from '../../exporter/telemetry/registry.ts'

const all = Object.entries(dashboardsByName()).map(([name, dashboard]) => ({ name, dashboard }))
const root = new URL('../..', import.meta.url).pathname

describe('Dashboards', () => {
  test.each(all)('$name has nothing that the linter finds fault with', ({ dashboard }) => {
    expect(lintDashboard(dashboard)).toEqual([])
  })

  test('and what else is generated from the registry are not stale', () => {
    expect(staleFiles(root)).toEqual([])
  })

  test('have addresses of their own', () => {
    const uids = all.map(({ dashboard }) => dashboard.uid)
    expect(new Set(uids).size).toBe(uids.length)
    expect(all.map(({ dashboard }) => dashboard.schemaVersion)).toEqual([42, 42, 42])
  })

  test('together show every metric that there is', () => {
    const shown = new Set(
      all
        .flatMap(({ dashboard }) => panelsOf(dashboard).flatMap(queriesOf))
        .flatMap(({ expr }) => readExpression(expr).selectors.map(({ metric }) => metric)),
    )
    expect(allMetrics.map(prometheusName).filter((name) => !shown.has(name))).toEqual([])
  })

  test('show traces on the lines of every statistic, with a way to the explorer', () => {
    for (const { dashboard } of all) {
      for (const panel of panelsOf(dashboard)) {
        const statistic = queriesOf(panel).some(({ expr }) => expr.includes('histogram_quantile'))
        if (!statistic || panel.type !== 'timeseries') continue
        expect(queriesOf(panel).every(({ exemplar }) => exemplar === true)).toBe(true)
        const links = JSON.stringify(panel.fieldConfig?.overrides)
        expect(links).toContain(`\${exporter}/t/\${__value.raw}`)
      }
    }
  })
})

describe('The linter', () => {
  const [{ dashboard: overview } = { dashboard: {} as Dashboard }] = all

  function broken(change: (dashboard: Dashboard) => void): string {
    const copy = JSON.parse(JSON.stringify(overview)) as Dashboard
    change(copy)
    return lintDashboard(copy).join('\n')
  }

  function withExpression(expr: string): string {
    return broken((dashboard) => {
      const query = panelsOf(dashboard).flatMap(queriesOf)[0]
      if (query !== undefined) query.expr = expr
    })
  }

  test.each([
    ['sum(rate(ring2_no_such_total[$__rate_interval]))', 'no code emits ring2_no_such_total'],
    [
      'sum(rate(ring2_requests_total{ring2_verdict="fine"}[$__rate_interval]))',
      'no code emits ring2.requests with ring2_verdict fine',
    ],
    [
      'sum(rate(ring2_requests_total{ring2_layer="1"}[$__rate_interval]))',
      'ring2.requests has no label ring2_layer',
    ],
    [
      'sum by (ring2_hook) (rate(ring2_requests_total[$__rate_interval]))',
      'ring2_requests_total has no label ring2_hook to group by',
    ],
    ['sum(rate(ring2_requests_total[5m]))', 'rate(ring2.requests) over 5m'],
    ['sum(ring2_requests_total)', 'read its rate or increase'],
    ['sum(rate(ring2_export_lag_seconds[$__rate_interval]))', 'is a gauge and has no rate'],
    [
      'sum(rate(ring2_requests_total{gen_ai_request_model=~"$modle"}[$__rate_interval]))',
      'no variable modle',
    ],
    ['sum(rate(ring2_requests_total[$__rate_interval])', 'not valid PromQL'],
  ])('refuses the query %s', (expr, problem) => {
    expect(withExpression(expr)).toContain(problem)
  })

  test('refuses panels without a title, description, unit or the chosen data source', () => {
    const problems = broken((dashboard) => {
      const [panel] = panelsOf(dashboard)
      if (panel === undefined) return
      delete panel.title
      delete panel.description
      delete panel.fieldConfig?.defaults.unit
      panel.datasource = { type: 'prometheus', uid: 'fixed' }
    })
    expect(problems).toContain('no title')
    expect(problems).toContain('no description')
    expect(problems).toContain('no unit')
    expect(problems).toContain('not of the chosen data source')
  })

  test('refuses panels that lie over each other or share an id', () => {
    const problems = broken((dashboard) => {
      const [first, second] = panelsOf(dashboard)
      if (first === undefined || second === undefined) return
      second.id = first.id ?? 0
      if (first.gridPos !== undefined) second.gridPos = first.gridPos
    })
    expect(problems).toContain('two panels have the id')
    expect(problems).toContain('lies over another')
  })
})
