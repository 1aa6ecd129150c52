import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { runbookPath } from '../../dashboards/alerts/alert.ts'
import { alerts } from '../../dashboards/alerts/alerts.ts'
import { grafanaRules, withoutRecordings } from '../../dashboards/alerts/grafana-rules.ts'
import { recordings } from '../../dashboards/alerts/objective.ts'
import { prometheusRules } from '../../dashboards/alerts/prometheus-rules.ts'
import { runbookSections } from '../../dashboards/alerts/runbooks.ts'
import { dashboardsByName } from '../../dashboards/dashboards.ts'
import { readExpression } from '../../dashboards/expression.ts'
import { panelsOf } from '../../dashboards/lint.ts'
import { lintExpression } from '../../dashboards/lint-expression.ts'

const root = new URL('../..', import.meta.url).pathname
const recorded = new Map(recordings.map(({ record, labels }) => [record, labels]))
const dashboards = dashboardsByName()

interface GrafanaRule {
  readonly uid: string
  readonly title: string
  readonly condition: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly data: readonly {
    readonly refId: string
    readonly datasourceUid: string
    readonly model: { readonly expr?: string; readonly refId: string }
  }[]
}

const grafana = parse(grafanaRules(dashboards)) as {
  groups: { name: string; folder: string; rules: GrafanaRule[] }[]
}
const grafanaAlerts = grafana.groups.flatMap(({ rules }) => rules)

describe('Alert rules', () => {
  test.each(alerts)('$name names only metrics, labels and values that code emits', (alert) => {
    expect(lintExpression(alert.expression, { recorded })).toEqual([])
    expect(lintExpression(withoutRecordings(alert.expression))).toEqual([])
  })

  test.each(recordings)('$record is made of metrics that code emits', ({ expression }) => {
    expect(lintExpression(expression, { recorded })).toEqual([])
  })

  test('are refused when they name what no code emits', () => {
    const typo = 'sum(increase(ring2_requests_total{ring2_verdict="colapsed"}[5m])) > 0'
    expect(lintExpression(typo)).toEqual([
      'no code emits ring2.requests with ring2_verdict colapsed',
    ])
    const gone = 'model:ring2_sli_bad:increase9h > 2'
    expect(lintExpression(gone, { recorded })).toEqual([
      'no code emits model:ring2_sli_bad:increase9h',
    ])
  })

  test('speak in their texts of labels that they have', () => {
    for (const { name, expression, summary, description } of alerts) {
      const { groups } = readExpression(withoutRecordings(expression))
      const labels = new Set(groups.flatMap((group) => group.labels))
      const named = [...`${summary} ${description}`.matchAll(/\$labels\.(\w+)/g)].map((m) => m[1])
      for (const label of named) expect([...labels], name).toContain(label)
    }
  })

  test('have names, addresses and pages of their own', () => {
    const names = alerts.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    const uids = grafanaAlerts.map(({ uid }) => uid)
    expect(new Set(uids).size).toBe(names.length)
    // Grafana takes no longer uid.
    expect(uids.filter((uid) => uid.length > 40)).toEqual([])
  })
})

describe('Grafana’s rules', () => {
  test('are the same alerts as Prometheus’, with the same labels', () => {
    const rules = parse(prometheusRules(dashboards)) as {
      groups: { name: string; rules: { alert?: string; labels?: unknown }[] }[]
    }
    const ofPrometheus = rules.groups.flatMap(({ name, rules: all }) =>
      all.flatMap(({ alert, labels }) => (alert === undefined ? [] : [{ name, alert, labels }])),
    )
    const ofGrafana = grafana.groups.flatMap(({ name, rules: all }) =>
      all.map(({ title, labels }) => ({ name, alert: title, labels })),
    )
    expect(ofGrafana).toEqual(ofPrometheus)
  })

  test('need no recorded series and fire on any value at all', () => {
    for (const { title, data, condition } of grafanaAlerts) {
      const [query, value] = data
      expect(query?.model.expr, title).not.toContain('model:ring2')
      expect(data.map(({ refId }) => refId)).toEqual(['query', 'value', 'threshold'])
      expect(data.map(({ model }) => model.refId)).toEqual(['query', 'value', 'threshold'])
      expect(query?.datasourceUid).toBe('prometheus')
      expect(value?.datasourceUid).toBe('__expr__')
      expect(condition).toBe('threshold')
    }
  })

  test('lead to panels that exist', () => {
    const panels = new Map(
      Object.values(dashboards).map((dashboard) => [
        dashboard.uid,
        new Set(panelsOf(dashboard).map(({ id }) => String(id))),
      ]),
    )
    for (const { annotations } of grafanaAlerts) {
      const { __dashboardUid__: uid = '', __panelId__: id = '' } = annotations
      expect(panels.get(uid)?.has(id)).toBe(true)
      expect(annotations.description).not.toContain('$value ')
    }
  })
})

describe('Runbooks', () => {
  test.each(alerts)('$name has one that answers every question', (alert) => {
    const path = join(root, runbookPath(alert))
    expect(existsSync(path)).toBe(true)
    const parts = readFileSync(path, 'utf8').split(/^## /m).slice(1)
    const titles = parts.map((part) => part.slice(0, part.indexOf('\n')))
    expect(titles).toEqual([...runbookSections])
    for (const part of parts) expect(part.split('\n').slice(1).join('').trim()).not.toBe('')
  })

  test.each(alerts)('$name: its runbook has queries that can have data', (alert) => {
    const text = readFileSync(join(root, runbookPath(alert)), 'utf8')
    const queries = [...text.matchAll(/^```promql\n([\s\S]*?)^```/gm)].map(
      (match) => match[1] ?? '',
    )
    expect(queries.length).toBeGreaterThan(0)
    // Queries stand one below the other; one that goes on is indented, bracketed or begins with an operator.
    const each = queries.flatMap((block) => block.trim().split(/\n(?=sum|max|count|histogram)/))
    for (const query of each) expect(lintExpression(query, { recorded })).toEqual([])
  })

  test('are there for no alert that is gone', () => {
    const known = new Set(alerts.map((alert) => runbookPath(alert).replace('docs/runbooks/', '')))
    const files = readdirSync(join(root, 'docs/runbooks')).filter((name) => name !== 'README.md')
    expect(files.filter((name) => !known.has(name))).toEqual([])
  })
})
