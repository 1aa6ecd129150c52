/** Norms of hidden states, layer by token: a heat map whose tiles are asked for as the reader moves. */
import { html, nothing, render, type TemplateResult } from 'lit-html'
import { type Route, type RouteKey, withValues } from './address.ts'
import type { Problem } from './api.ts'
import { cellColours } from './colour.ts'
import { numberText, quotedToken } from './format.ts'
import { createHeatMap } from './heat-map.ts'
import { firstHook, normHooksOf, removedOf } from './held.ts'
import { legendView } from './legend.ts'
import { limits } from './limits.ts'
import { type CellKind, createNormTiles, type LayerTile } from './norm-tiles.ts'
import type { PanelContext } from './panel-context.ts'
import { type Area, type Picture, parseSpan, type Reading, spanText } from './picture.ts'
import { problemView } from './problem-view.ts'
import { createScale, rangeOf, type Scale } from './scale.ts'
import { selectField } from './select-field.ts'
import type { NormsTile } from './shapes.ts'
import { createTableAlternative } from './table-view.ts'
import { onTheme, theme } from './theme.ts'
import type { View } from './view.ts'

const help =
  'Arrow keys move over the cells and read them, + and − zoom, 0 shows all; drag moves, a double click zooms in.'
const cellNames = { max: 'largest', mean: 'mean' } as const

export function createNormsView(host: HTMLElement, context: PanelContext): View {
  const { api, navigation, request, tokens, traceId } = context
  const controls = host.appendChild(document.createElement('div'))
  const plot = host.appendChild(document.createElement('div'))
  const after = host.appendChild(document.createElement('div'))
  const asking = new AbortController()
  const hooks = normHooksOf(request)
  const total = (hook: string): number => storedEnd(context, hook)
  const path = `/v1/traces/${traceId}/views/norms`
  let route: Route = { traceId, values: {} }
  let problem: Problem | null = null
  const tiles = createNormTiles(api, path, request, total, asking.signal, (failed) => {
    problem = failed
    draw()
  })
  const heat = createHeatMap(plot, help, {
    describe,
    onCursor(point) {
      const layer = layersOf(current().tiles)[point.y] ?? point.y
      note({ token: String(point.x), layer: String(layer) })
    },
    onView: (view) => note({ view: spanText(view.x) }),
    onKey: () => false,
  })
  const table = createTableAlternative(after, 'Norms as a table', tableOf)

  function note(changes: Partial<Record<RouteKey, string>>): void {
    navigation.note(changes)
    route = navigation.route()
    draw()
  }

  function current() {
    const { values } = route
    const hook =
      values.hook !== undefined && hooks.includes(values.hook)
        ? values.hook
        : firstHook(request, hooks)
    const kind: CellKind = values.cell === 'mean' ? 'mean' : 'max'
    const end = hook === undefined ? 0 : total(hook)
    const span = parseSpan(values.view, { start: 0, end })
    const shown = hook === undefined || problem !== null ? [] : tiles.covering(hook, span)
    return { hook, kind, span, end, tiles: shown }
  }

  function scaleOf(hook: string): Scale {
    const values = tiles
      .all(hook)
      .flatMap(({ patches }) => [...patches.mean.values, ...patches.max.values])
    const [low, high] = rangeOf(values) ?? [0, 1]
    return createScale(route.values.scale === 'linear' ? 'linear' : 'log', low, high)
  }

  function draw(): void {
    const { hook, kind, span, end, tiles: shown } = current()
    plot.hidden = hook === undefined || end === 0 || problem !== null
    if (hook === undefined || end === 0) {
      render(
        removedOf(request) > 0
          ? html`<p class="nothing">The hidden states of this request are no longer stored, so there are no norms.</p>`
          : html`<p class="nothing">No hidden states are stored for this request, so there are no norms.
        Capture a hook such as <code>resid_pre</code> and store it.</p>`,
        controls,
      )
      return
    }
    const scale = scaleOf(hook)
    const colours = cellColours(theme())
    render(controlsView(hook, kind, scale, colours), controls)
    const layers = layersOf(shown)
    const rows = Math.max(1, layers.length)
    const { layer, token } = route.values
    const row = layer === undefined ? -1 : layers.indexOf(Number(layer))
    const picture: Picture = {
      label: `L2 norms of ${hook}, layer by token`,
      xTitle: 'token',
      yTitle: 'layer',
      yName: (y) => String(layers[y] ?? ''),
      extent: { x: { start: 0, end }, y: { start: 0, end: rows } },
      view: { x: span, y: { start: 0, end: rows } },
      zoomY: false,
      square: false,
      patches: shown.map(({ patches }) => patches[kind]),
      colour: (value) => colours.at(scale.share(value)),
      colourKey: `${theme()} ${scale.kind} ${scale.low} ${scale.high}`,
      cursor: row < 0 || token === undefined ? null : { x: Number(token), y: row },
      top: null,
      right: null,
    }
    heat.show(picture)
    table.show(`${hook} ${spanText(span)}`)
  }

  function controlsView(
    hook: string,
    kind: CellKind,
    scale: Scale,
    colours: ReturnType<typeof cellColours>,
  ): TemplateResult {
    const set = (key: RouteKey) => (value: string) =>
      navigation.go(withValues(navigation.route(), { [key]: value }))
    return html`<div class="controls">
        ${selectField('Hook', 'hook', hooks, hook, set('hook'))}
        ${selectField('Cell of several tokens', 'cell', ['max', 'mean'], kind, set('cell'))}
        ${selectField('Scale', 'scale', ['log', 'linear'], scale.kind, set('scale'))}
        ${legendView(`L2 norm of ${hook} per token`, scale, colours, 'not stored')}
      </div>
      ${problem === null ? nothing : problemView(problem, again)}`
  }

  function again(): void {
    problem = null
    draw()
  }

  function describe({ area, patch, index }: Reading): readonly string[] {
    const shown = current().tiles.find(({ patches }) => Object.values(patches).includes(patch))
    const layer = shown?.tile.rows[area.y.start]?.layer ?? area.y.start
    const numbers = (['max', 'mean'] as const).map(
      (kind) => shown?.patches[kind].values[index] ?? null,
    )
    return [
      `Layer ${layer}`,
      tokensText(area),
      normText(area, numbers[0] ?? null, numbers[1] ?? null),
    ]
  }

  function tokensText({ x }: Area): string {
    if (x.end - x.start > 1) return `Tokens ${x.start} to ${Math.min(x.end, current().end) - 1}`
    return `Token ${x.start} ${quotedToken(tokens.named(x.start))}`.trim()
  }

  async function tableOf(signal: AbortSignal) {
    const { hook, span, kind, end } = current()
    const { request_id, producer } = request
    const query = { request_id, producer, hook, tokens: spanText(span), columns: limits.tableCells }
    const answer = await api.get<NormsTile>(path, query, signal)
    if (answer.status !== 'success') return answer
    const { tokens_per_cell: each, tokens: shown, rows } = answer.value
    const columns = (rows[0]?.[kind] ?? []).map((_, index) => {
      const first = shown[0] + index * each
      return each === 1 ? String(first) : `${first}–${Math.min(first + each, end) - 1}`
    })
    return {
      status: 'success' as const,
      value: {
        caption: `${cellNames[kind]} L2 norm of ${hook}, layer by ${each === 1 ? 'token' : `${each} tokens`}`,
        corner: 'Layer',
        columns,
        rows: rows.map((row) => ({
          name: String(row.layer),
          cells: row[kind].map((one) => numberText(one)),
        })),
      },
    }
  }

  const stopTheme = onTheme(draw)
  const stopNames = tokens.watch(draw)
  return {
    show(next) {
      route = next
      draw()
    },
    close() {
      asking.abort()
      heat.close()
      table.close()
      stopTheme()
      stopNames()
    },
  }
}

function normText({ x }: Area, max: number | null, mean: number | null): string {
  if (max === null) return 'not stored'
  if (x.end - x.start === 1) return `L2 norm ${numberText(max, 5)}`
  return `L2 norm: largest ${numberText(max, 5)}, mean ${numberText(mean, 5)}`
}

function layersOf(tiles: readonly LayerTile[]): readonly number[] {
  return tiles[0]?.tile.rows.map((row) => row.layer) ?? []
}

/** One past the last position that any layer of the hook has. */
function storedEnd({ request }: PanelContext, hook: string): number {
  const stored = request.tensors.filter((one) => one.hook === hook)
  return stored.reduce((most, one) => Math.max(most, one.token_end), 0)
}
