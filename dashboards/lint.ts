/**
 * What Grafana's own dashboard linter looks for, and that expressions name what code emits. The linter's
 * rules on `job` and `instance` are left out: a model is served by any number of exporters, and is looked
 * at as one.
 */
import type {
  Dashboard,
  GridPos,
  Panel,
  RowPanel,
  VariableModel,
} from '@grafana/grafana-foundation-sdk/dashboard'
import type { Dataquery } from '@grafana/grafana-foundation-sdk/prometheus'
import { lintExpression } from './lint-expression.ts'

/** The one data source that everything must name. */
const datasourceUid = `\${datasource}`

/** What is wrong with a dashboard, in words; empty when nothing is. */
export function lintDashboard(dashboard: Dashboard): string[] {
  const panels = dashboard.panels ?? []
  const variables = dashboard.templating.list ?? []
  const names = variables.map(({ name }) => name)
  return [
    ...lintFrame(dashboard, variables),
    ...variables.flatMap((variable) => lintVariable(variable, names)),
    ...panels.flatMap((panel) => {
      if (isRow(panel)) return []
      return lintPanel(panel, names).map((problem) => `${panel.title || panel.id}: ${problem}`)
    }),
    ...duplicates(panels.map(({ id }) => String(id))).map((id) => `two panels have the id ${id}`),
    ...lintGrid(panels),
  ]
}

/** A dashboard's panels without its rows. */
export function panelsOf(dashboard: Dashboard): Panel[] {
  return (dashboard.panels ?? []).flatMap((panel) => (isRow(panel) ? [] : [panel]))
}

export function isRow(panel: Panel | RowPanel): panel is RowPanel {
  return panel.type === 'row'
}

/** A panel's queries; all of them are Prometheus'. */
export function queriesOf(panel: Panel): Dataquery[] {
  return (panel.targets ?? []) as Dataquery[]
}

function lintFrame(dashboard: Dashboard, variables: readonly VariableModel[]): string[] {
  const problems: string[] = []
  if (!dashboard.title) problems.push('no title')
  if (!dashboard.description) problems.push('no description')
  if (!dashboard.uid || dashboard.uid.length > 40) problems.push('no stable uid')
  if (!dashboard.tags?.includes('ring2')) problems.push('not tagged ring2')
  if (dashboard.editable !== false) problems.push('editable, though it is provisioned')
  const sources = variables.filter(({ type }) => type === 'datasource')
  if (sources.length !== 1 || sources[0]?.name !== 'datasource') {
    problems.push('not exactly one variable `datasource`')
  }
  return problems
}

function lintVariable(variable: VariableModel, names: readonly string[]): string[] {
  const problems: string[] = []
  if (!variable.label || !variable.description) problems.push('no label or description')
  if (variable.type === 'query') {
    if (variable.datasource?.uid !== datasourceUid) problems.push('not of the chosen data source')
    // As Grafana asks: what a panel shows must be among the choices of its time range.
    if (variable.refresh !== 2) problems.push('not read again when the time range changes')
    const [, series = ''] = /^label_values\((.*), \w+\)$/.exec(variable.definition ?? '') ?? []
    problems.push(...lintExpression(series, { variables: names }))
  }
  return problems.map((problem) => `variable ${variable.name}: ${problem}`)
}

function lintPanel(panel: Panel, variables: readonly string[]): string[] {
  const problems: string[] = []
  if (!panel.title) problems.push('no title')
  if (!panel.description) problems.push('no description')
  if (!panel.fieldConfig?.defaults.unit) problems.push('no unit')
  if (panel.datasource?.uid !== datasourceUid) problems.push('not of the chosen data source')
  const queries = queriesOf(panel)
  if (queries.length === 0) problems.push('no query')
  for (const query of queries) {
    if (query.datasource?.uid !== datasourceUid) problems.push('a query of a fixed data source')
    if (query.legendFormat === undefined) problems.push('a query without a legend')
    problems.push(...lintExpression(query.expr, { variables, growthOnly: true }))
  }
  problems.push(...duplicates(queries.map(({ refId }) => String(refId))).map((id) => `two ${id}`))
  return problems
}

function lintGrid(panels: readonly (Panel | RowPanel)[]): string[] {
  const placed = panels.flatMap(({ id, gridPos }) => (gridPos ? [{ id, gridPos }] : []))
  const missing = placed.length === panels.length ? [] : ['a panel without a place']
  const outside = placed.filter(({ gridPos }) => gridPos.x + gridPos.w > 24)
  const overlaps = placed.flatMap((one, index) =>
    placed.slice(index + 1).filter((other) => overlap(one.gridPos, other.gridPos)),
  )
  return [
    ...missing,
    ...outside.map(({ id }) => `panel ${id} is wider than the grid`),
    ...overlaps.map(({ id }) => `panel ${id} lies over another`),
  ]
}

function overlap(one: GridPos, other: GridPos): boolean {
  return (
    one.x < other.x + other.w &&
    other.x < one.x + one.w &&
    one.y < other.y + other.h &&
    other.y < one.y + one.h
  )
}

function duplicates(values: readonly string[]): string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))]
}
