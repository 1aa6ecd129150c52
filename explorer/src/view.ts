/** What views have in common: what they are given, and how they are shown and closed. */

import type { Route } from './address.ts'
import type { Api } from './api.ts'
import type { Navigation } from './route.ts'

export interface Context {
  readonly api: Api
  readonly navigation: Navigation
}

export interface View {
  /** Called again whenever the address changes. */
  show(route: Route): void
  /** Ends listening and asking; its element leaves the page. */
  close(): void
}
