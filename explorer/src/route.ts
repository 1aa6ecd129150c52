/**
 * The address of the page and what it says: the trace in its path, the state of the view in its query.
 * A copied address shows what its sender saw. Nothing secret is in it.
 */
import { limits } from './limits.ts'

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
  const pairs = keys.flatMap((key) => {
    const value = route.values[key]
    return value === undefined || value === '' ? [] : [[key, value]]
  })
  return `${base}${path}${pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`}`
}

export function withValues(route: Route, changes: RouteValues): Route {
  return { ...route, values: { ...route.values, ...changes } }
}

export interface Navigation {
  readonly base: string
  route(): Route
  /** A step that Back undoes. */
  go(route: Route): void
  /** A small move, such as of the cursor: no step of its own. */
  note(changes: RouteValues): void
}

export function createNavigation(base: string, onChange: (route: Route) => void): Navigation {
  let route = parseRoute(base, location.pathname, location.search)
  let timer: ReturnType<typeof setTimeout> | null = null

  function settle(): void {
    if (timer === null) return
    clearTimeout(timer)
    timer = null
    history.replaceState(null, '', hrefOf(base, route))
  }
  function go(next: Route): void {
    settle()
    route = next
    const href = hrefOf(base, next)
    if (href !== `${location.pathname}${location.search}`) history.pushState(null, '', href)
    onChange(route)
  }
  function note(changes: RouteValues): void {
    route = withValues(route, changes)
    if (timer === null) timer = setTimeout(settle, limits.addressMillis)
  }
  addEventListener('popstate', () => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    route = parseRoute(base, location.pathname, location.search)
    onChange(route)
  })
  document.addEventListener('click', (event) => {
    const href = ownLink(event, base)
    if (href === null) return
    event.preventDefault()
    go(parseRoute(base, href.pathname, href.search))
  })
  return { base, route: () => route, go, note }
}

/** The address of a plain click on a link to this page; null for everything else. */
function ownLink(event: MouseEvent, base: string): URL | null {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return null
  if (event.defaultPrevented || !(event.target instanceof Element)) return null
  const link = event.target.closest('a[data-own]')
  if (!(link instanceof HTMLAnchorElement)) return null
  const url = new URL(link.href)
  return url.origin === location.origin && url.pathname.startsWith(base) ? url : null
}
