/** Follows the page's address: links, Back and Forward, and small moves that are no steps of their own. */
import { hrefOf, parseRoute, type Route, type RouteValues, withValues } from './address.ts'
import { limits } from './limits.ts'

export interface Navigation {
  readonly base: string
  route(): Route
  /** A step that Back undoes. */
  go(route: Route): void
  /** A small move, such as of the cursor: no step of its own. */
  note(changes: RouteValues): void
  /** Puts the address right where it says what is not there; no step, and nothing is shown again. */
  mend(values: RouteValues): void
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
  function mend(values: RouteValues): void {
    if (timer !== null) clearTimeout(timer)
    timer = null
    route = { ...route, values }
    history.replaceState(null, '', hrefOf(base, route))
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
  return { base, route: () => route, go, note, mend }
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
