/**
 * The address of the page and what it says: the trace in its path, the state of the view in its query.
 * A copied address shows what its sender saw. Nothing secret is in it. Pure.
 */

/** Keys of the query, in the order in which addresses have them. */
const searchKeys = ['q', 'model', 'verdict', 'since', 'cursor'] as const
const traceKeys = [
  'request',
  'producer',
  'tab',
  'colour',
  'hook',
  'layer',
  'head',
  'scale',
  'cell',
  'token',
  'key',
  'view',
] as const

export type RouteKey = (typeof searchKeys)[number] | (typeof traceKeys)[number]
export type RouteValues = Readonly<Partial<Record<RouteKey, string>>>

export interface Route {
  /** Null on the page that searches. */
  readonly traceId: string | null
  readonly values: RouteValues
}

export function parseRoute(base: string, path: string, search: string): Route {
  const [, encoded] = /^\/t\/([^/]+)\/?$/.exec(path.slice(base.length)) ?? []
  const traceId = encoded === undefined ? null : decoded(encoded)
  const known: readonly RouteKey[] = traceId === null ? searchKeys : traceKeys
  const given = new URLSearchParams(search)
  const values = known.flatMap((key) => {
    const value = given.get(key)
    return value === null || value === '' ? [] : [[key, value]]
  })
  return { traceId, values: Object.fromEntries(values) }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

export function hrefOf(base: string, route: Route): string {
  const path = route.traceId === null ? '/' : `/t/${encodeURIComponent(route.traceId)}`
  const keys: readonly RouteKey[] = route.traceId === null ? searchKeys : traceKeys
  const pairs = keys.flatMap((key): [string, string][] => {
    const value = route.values[key]
    return value === undefined || value === '' ? [] : [[key, value]]
  })
  return `${base}${path}${pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`}`
}

/** What was typed or pasted: a whole trace id opens its trace, anything else is searched for. */
export function routeOfText(text: string): Route {
  return /^[0-9a-f]{32}$/i.test(text)
    ? { traceId: text.toLowerCase(), values: {} }
    : { traceId: null, values: { q: text } }
}

export function withValues(route: Route, changes: RouteValues): Route {
  return { ...route, values: { ...route.values, ...changes } }
}
