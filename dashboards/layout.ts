/**
 * A dashboard from rows of panels: places, ids, variables, links. Panels stand from left to right in
 * Grafana's 24 columns and wrap; ids count up in that order, so they change only when panels do.
 */
import type { Builder } from '@grafana/grafana-foundation-sdk/cog'
import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  type Panel,
  RowBuilder,
  type VariableModel,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { type DashboardName, dashboardTag, dashboardUids, topLinks } from './links.ts'
import type { PanelDraft } from './panels.ts'

export interface Row {
  readonly title: string
  readonly panels: readonly PanelDraft[]
}

export interface DashboardOptions {
  readonly name: DashboardName
  readonly title: string
  readonly description: string
  readonly variables: readonly Builder<VariableModel>[]
  readonly rows: readonly Row[]
}

const columns = 24

export function buildDashboard(options: DashboardOptions): Dashboard {
  const builder = new DashboardBuilder(options.title)
    .uid(dashboardUids[options.name])
    .description(options.description)
    .tags([dashboardTag, 'llm'])
    .readonly()
    .tooltip(DashboardCursorSync.Crosshair)
    .timezone('browser')
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .links(topLinks())
    .variables([...options.variables])
  let id = 1
  let y = 0
  for (const row of options.rows) {
    const place = { h: 1, w: columns, x: 0, y }
    builder.withRow(new RowBuilder(row.title).id(id).gridPos(place).collapsed(false))
    id += 1
    const placed = placeRow(row, id, y + 1)
    for (const panel of placed.panels) builder.withPanel({ build: () => panel })
    id += placed.panels.length
    y = placed.bottom
  }
  return builder.build()
}

function placeRow(row: Row, firstId: number, top: number): { panels: Panel[]; bottom: number } {
  let x = 0
  let y = top
  let lineHeight = 0
  const panels = row.panels.map(({ panel, width, height }, index) => {
    if (x + width > columns) {
      x = 0
      y += lineHeight
      lineHeight = 0
    }
    const gridPos = { h: height, w: width, x, y }
    x += width
    lineHeight = Math.max(lineHeight, height)
    return { ...panel.build(), id: firstId + index, gridPos }
  })
  return { panels, bottom: y + lineHeight }
}
