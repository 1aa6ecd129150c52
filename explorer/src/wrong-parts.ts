/**
 * Parts of a trace's address that name what is not there: each is said in words, and the address is put
 * right. Pure. What only an answer can tell, such as the number of heads, the view says itself.
 */
import type { RouteKey, RouteValues } from './address.ts'
import { hooksOf, layersOf, normHooksOf } from './held.ts'
import type { TracedRequest } from './shapes.ts'

type Named = Pick<TracedRequest, 'request_id' | 'producer' | 'tokens' | 'tensors'>

export const panelNames = ['tokens', 'norms', 'attention', 'commands'] as const
export type PanelName = (typeof panelNames)[number]

export function panelOf({ tab }: RouteValues): PanelName {
  return panelNames.find((name) => name === tab) ?? 'tokens'
}

export interface Mended {
  readonly values: RouteValues
  /** One sentence for each part; empty when nothing was wrong. */
  readonly wrong: readonly string[]
}

export function mendValues(values: RouteValues, request: Named): Mended {
  const left: Partial<Record<RouteKey, string>> = { ...values }
  const wrong: string[] = []
  const drop = (key: RouteKey, what: string): void => {
    wrong.push(`${what} ${JSON.stringify(values[key])}`)
    delete left[key]
  }
  const named = request.request_id === values.request || values.request === undefined
  const produced = request.producer === values.producer || values.producer === undefined
  if (!named || !produced) {
    const whose = values.producer === undefined ? '' : ` of ${values.producer}`
    wrong.push(
      `This trace has no request ${JSON.stringify(values.request ?? '')}${whose}: another one is shown.`,
    )
    left.request = request.request_id
    left.producer = request.producer
  }
  if (values.tab !== undefined && panelOf(values) !== values.tab) drop('tab', 'There is no view')
  const { hooks, name } = hooksIn(panelOf(values), request)
  if (values.hook !== undefined && !hooks.includes(values.hook)) {
    drop('hook', `${name} have no hook`)
  }
  const layers = layersOf(request, left.hook === undefined ? hooks : [left.hook]).map(String)
  if (values.layer !== undefined && !layers.includes(values.layer)) {
    drop('layer', `${left.hook ?? name} ${left.hook === undefined ? 'have' : 'has'} no layer`)
  }
  for (const key of ['token', 'key'] as const) {
    if (!isPosition(values[key], request.tokens)) drop(key, 'The request has no token')
  }
  for (const [key, fits] of Object.entries(forms(panelOf(values))) as [RouteKey, RegExp][]) {
    const value = values[key]
    if (value !== undefined && !fits.test(value)) drop(key, `Not understood: ${key}`)
  }
  return { values: left, wrong: wrong.map((text) => (/[.]$/.test(text) ? text : `${text}.`)) }
}

function hooksIn(panel: PanelName, request: Named) {
  if (panel === 'norms') return { name: 'The stored hidden states', hooks: normHooksOf(request) }
  const all = hooksOf(request)
  if (panel === 'attention') {
    return { name: 'The stored patterns', hooks: all.filter((hook) => hook === 'pattern') }
  }
  return { name: 'The stored tensors', hooks: all }
}

/** Until a request has ended its number of tokens is not known. */
function isPosition(text: string | undefined, tokens: number | null): boolean {
  if (text === undefined) return true
  return /^\d{1,9}$/.test(text) && (tokens === null || Number(text) < tokens)
}

function forms(panel: PanelName): Readonly<Partial<Record<RouteKey, RegExp>>> {
  return {
    colour: /^(entropy|surprisal)$/,
    head: /^(mean|\d{1,4})$/,
    cell: /^(max|mean)$/,
    scale: panel === 'attention' ? /^(root|linear)$/ : /^(log|linear)$/,
    view: panel === 'attention' ? /^\d{1,9}:\d{1,9},\d{1,9}:\d{1,9}$/ : /^\d{1,9}:\d{1,9}$/,
  }
}
