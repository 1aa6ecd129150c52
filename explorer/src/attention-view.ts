/**
 * Attention patterns of one head: query by key, with the mass that each key draws along the top (the
 * sink is marked) and the share of each query's attention that goes back to the prompt at the right.
 */
import { html, nothing, render, type TemplateResult } from 'lit-html'
import { type Route, type RouteKey, type RouteValues, withValues } from './address.ts'
import { announce } from './announce.ts'
import type { Problem } from './api.ts'
import { type ColourMap, cellColours } from './colour.ts'
import { numberText, quotedToken, shareText } from './format.ts'
import { createHeadPictures } from './head-pictures.ts'
import { createHeatMap } from './heat-map.ts'
import { layersOf, removedOf } from './held.ts'
import { legendView } from './legend.ts'
import { limits } from './limits.ts'
import type { PanelContext } from './panel-context.ts'
import { createPatternWindows, type PatternChoice, type PatternPart } from './pattern-windows.ts'
import { type Area, type Picture, parseSpan, type Reading, type Span, spanText } from './picture.ts'
import { problemView } from './problem-view.ts'
import { createScale, type Scale } from './scale.ts'
import { selectField } from './select-field.ts'
import { createTableAlternative } from './table-view.ts'
import { onTheme, theme } from './theme.ts'
import type { View } from './view.ts'

const help =
  'Arrow keys move over the cells and read them, + and − zoom, 0 shows all, [ and ] change the head, ' +
  'comma and full stop the layer; drag moves, a double click zooms in.'

export function createAttentionView(host: HTMLElement, context: PanelContext): View {
  const { api, navigation, request, tokens, traceId } = context
  const controls = host.appendChild(document.createElement('div'))
  const small = host.appendChild(document.createElement('div'))
  const plot = host.appendChild(document.createElement('div'))
  const after = host.appendChild(document.createElement('div'))
  const layers = layersOf(request, ['pattern'])
  const whole = extentOf(context)
  const windows = createPatternWindows(api, traceId, request)
  let route: Route = { traceId, values: {} }
  let problem: Problem | null = null
  let heads = 0
  let asking = new AbortController()
  let timer: ReturnType<typeof setTimeout> | null = null
  const pictures = createHeadPictures(small, windows, whole, (head) => set('head', head))
  const heat = createHeatMap(plot, help, {
    describe,
    onCursor: (point) => note({ key: String(point.x), token: String(point.y) }),
    onView: (view) => note({ view: `${spanText(view.y)},${spanText(view.x)}` }),
    onKey,
  })
  const table = createTableAlternative(after, 'Pattern as a table', tableOf)

  function set(key: RouteKey, value: string): void {
    navigation.go(withValues(navigation.route(), { [key]: value }))
  }
  function note(changes: RouteValues): void {
    navigation.note(changes)
    route = navigation.route()
    update()
  }

  function choice(): PatternChoice {
    const { layer, head } = route.values
    const wanted = Number(layer)
    const known = layer !== undefined && layers.includes(wanted) ? wanted : (layers[0] ?? 0)
    return { layer: known, head: head !== undefined && /^\d{1,4}$/.test(head) ? head : 'mean' }
  }

  function area(): Area {
    const [queries, keys] = (route.values.view ?? '').split(',')
    return { y: parseSpan(queries, whole.y), x: parseSpan(keys, whole.x) }
  }

  function parts(): PatternPart[] {
    const under = windows.known(choice(), whole, limits.patternCells)
    const over = windows.known(choice(), area(), limits.patternCells)
    return [under, over].filter((part) => part !== undefined)
  }

  /** Draws what is here and asks for what is not, once the reader's hand rests. */
  function update(): void {
    draw()
    if (layers.length === 0 || problem !== null) return
    if (windows.known(choice(), area(), limits.patternCells) !== undefined) return
    if (timer !== null) clearTimeout(timer)
    const pause = parts().length === 0 ? 0 : limits.settleMillis
    timer = setTimeout(() => void ask(), pause)
  }

  async function ask(): Promise<void> {
    asking.abort()
    asking = new AbortController()
    const answer = await windows.ask(choice(), area(), limits.patternCells, asking.signal)
    if (answer.status === 'aborted') return
    if (answer.status === 'problem') problem = answer.problem
    else heads = answer.value.window.heads
    draw()
  }

  function draw(): void {
    plot.hidden = layers.length === 0 || problem !== null
    if (layers.length === 0) {
      render(
        removedOf(request) > 0
          ? html`<p class="nothing">Attention patterns of this request are no longer stored, or never were.</p>`
          : html`<p class="nothing">No attention patterns are stored for this request.
        Capture the hook <code>pattern</code> and store it.</p>`,
        controls,
      )
      return
    }
    const chosen = choice()
    const scale = createScale(route.values.scale === 'linear' ? 'linear' : 'root', 0, 1)
    const colours = cellColours(theme())
    render(controlsView(chosen, scale, colours), controls)
    pictures.show(chosen.layer, heads, chosen.head, colours, scale)
    heat.show(pictureOf(chosen, scale, colours))
    table.show(`${chosen.layer} ${chosen.head} ${JSON.stringify(area())}`)
  }

  function pictureOf({ layer, head }: PatternChoice, scale: Scale, colours: ColourMap): Picture {
    const shown = parts()
    const window = shown.at(-1)?.window
    const { key, token } = route.values
    return {
      label: `Attention of layer ${layer}, ${headName(head)}: query by key`,
      xTitle: 'key',
      yTitle: 'query',
      yName: String,
      extent: whole,
      view: area(),
      zoomY: true,
      square: true,
      patches: shown.map(({ patch }) => patch),
      colour: (value) => colours.at(scale.share(value)),
      colourKey: `${theme()} ${scale.kind}`,
      cursor:
        key === undefined || token === undefined ? null : { x: Number(key), y: Number(token) },
      top: window === undefined ? null : stripOfKeys(window),
      right: window === undefined ? null : stripOfQueries(window),
    }
  }

  function controlsView(chosen: PatternChoice, scale: Scale, colours: ColourMap): TemplateResult {
    const all = ['mean', ...Array.from({ length: heads }, (_, head) => String(head))]
    if (!all.includes(chosen.head)) all.push(chosen.head)
    return html`<div class="controls">
        ${selectField('Layer', 'layer', layers.map(String), String(chosen.layer), (value) => set('layer', value))}
        ${selectField('Head', 'head', all, chosen.head, (value) => set('head', value))}
        ${selectField('Scale', 'scale', ['root', 'linear'], scale.kind, (value) => set('scale', value))}
        ${legendView('Attention probability', scale, colours, 'not stored, or a key after its query')}
      </div>
      ${sinkText()}
      ${problem === null ? nothing : problemView(problem, again)}`
  }

  function sinkText(): TemplateResult | typeof nothing {
    const mass = parts().at(-1)?.window.sink.first_key ?? null
    if (mass === null) return nothing
    return html`<p class="sink">The bars at the top are the mass that each key draws, the mean over the queries
      shown; the first key, the sink, is coloured and draws ${shareText(mass)}. The bars at the right, beside generated
      queries, are lookback: the share of a token's attention that goes to the prompt, from 0 to 100 %.</p>`
  }

  function again(): void {
    problem = null
    update()
  }

  function onKey(key: string): boolean {
    const { layer, head } = choice()
    const step = { '[': -1, ']': 1, ',': -1, '.': 1 }[key]
    if (step === undefined) return false
    if (key === '[' || key === ']') {
      const next = head === 'mean' ? (step > 0 ? 0 : heads - 1) : Number(head) + step
      if (next < 0 || next >= heads) return true
      set('head', String(next))
      announce(headName(String(next)))
      return true
    }
    const next = layers[layers.indexOf(layer) + step]
    if (next === undefined) return true
    set('layer', String(next))
    announce(`layer ${next}`)
    return true
  }

  function describe({ area: { x, y }, value }: Reading): readonly string[] {
    const what = x.end - x.start > 1 ? 'largest probability' : 'probability'
    return [
      `Query ${placeText(y)}`,
      `Key ${placeText(x)}`,
      value === null ? 'not stored, or a key after the query' : `${what} ${numberText(value, 4)}`,
    ]
  }

  function placeText({ start, end }: Span): string {
    if (end - start > 1) return `${start} to ${end - 1}`
    return `${start} ${quotedToken(tokens.named(start))}`.trim()
  }

  async function tableOf(signal: AbortSignal) {
    const answer = await windows.ask(choice(), area(), limits.tableCells, signal)
    if (answer.status !== 'success') return answer
    const { keys, queries, tokens_per_cell: each, columns, rows, cells } = answer.value.window
    const name = (start: number, index: number) => {
      const first = start + index * each
      return each === 1 ? String(first) : `${first}–${first + each - 1}`
    }
    return {
      status: 'success' as const,
      value: {
        caption: `${each === 1 ? 'Attention probability' : 'Largest attention probability'} of layer ${choice().layer}, ${headName(choice().head)}, query by key`,
        corner: 'Query',
        columns: Array.from({ length: columns }, (_, column) => name(keys[0], column)),
        rows: Array.from({ length: rows }, (_, row) => ({
          name: name(queries[0], row),
          cells: cells.slice(row * columns, (row + 1) * columns).map((one) => numberText(one)),
        })),
      },
    }
  }

  const stopTheme = onTheme(draw)
  const stopNames = tokens.watch(draw)
  return {
    show(next) {
      route = next
      problem = null
      update()
    },
    close() {
      asking.abort()
      if (timer !== null) clearTimeout(timer)
      pictures.close()
      heat.close()
      table.close()
      stopTheme()
      stopNames()
    },
  }
}

type Window = PatternPart['window']

/** The column that has the first key; null where it is out of view. */
function sinkColumn({ keys }: Window): number | null {
  return keys[0] === 0 ? 0 : null
}

function stripOfKeys(window: Window) {
  const { sink, keys, tokens_per_cell: cell } = window
  const masses = sink.key_mass.map((value) => value ?? 0)
  const most = Math.max(...masses) || 1
  const index = sinkColumn(window)
  return {
    title: `mass drawn, square root scale to ${shareText(most)}`,
    start: keys[0],
    cell,
    values: sink.key_mass.map((value) => (value === null ? null : Math.sqrt(value / most))),
    marked: index === null ? null : { index, title: `sink ${shareText(sink.first_key)}` },
  }
}

function stripOfQueries({ lookback, queries, tokens_per_cell: cell }: Window) {
  return { title: 'lookback', start: queries[0], cell, values: lookback, marked: null }
}

function headName(head: string): string {
  return head === 'mean' ? 'mean over the heads' : `head ${head}`
}

/** Queries are the stored positions; keys begin with the request. */
function extentOf({ request }: PanelContext): Area {
  const stored = request.tensors.filter(({ hook }) => hook === 'pattern')
  const end = Math.max(1, ...stored.map(({ token_end }) => token_end))
  return { x: { start: 0, end }, y: { start: 0, end } }
}
