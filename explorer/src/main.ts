/**
 * Starts the explorer: one page that is a search or a trace, as its address says. Views draw themselves
 * into the element that they are given; this file only swaps them.
 */

import type { Route } from './address.ts'
import { createApi } from './api.ts'
import { createHeader } from './header.ts'
import { createNavigation } from './route.ts'
import { createSearchView } from './search-view.ts'
import { createTokenKeeper } from './sign-in.ts'
import { startTheme } from './theme.ts'
import { createTraceView } from './trace-view.ts'
import type { Context, View } from './view.ts'

function start(): void {
  startTheme()
  const base = document.querySelector<HTMLMetaElement>('meta[name="ring2-base"]')?.content ?? ''
  const main = document.getElementById('main')
  const top = document.getElementById('top')
  if (main === null || top === null) throw new Error('the page has no main element')
  const dialogs = document.body.appendChild(document.createElement('div'))
  const api = createApi(base, createTokenKeeper(dialogs))

  let shown: { readonly key: string; readonly view: View } | null = null
  const show = (route: Route): void => {
    header.show(route)
    const key = route.traceId ?? ''
    if (shown?.key !== key) {
      shown?.view.close()
      main.replaceChildren()
      const host = main.appendChild(document.createElement('div'))
      const create = route.traceId === null ? createSearchView : createTraceView
      shown = { key, view: create(host, context) }
    }
    shown.view.show(route)
  }
  const navigation = createNavigation(base, show)
  const context: Context = { api, navigation }
  const header = createHeader(top, navigation)
  show(navigation.route())
}

start()
