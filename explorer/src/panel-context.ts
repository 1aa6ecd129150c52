/** What every panel of a trace is given: the page's context, the chosen request, and its tokens. */
import type { TracedRequest } from './shapes.ts'
import type { TokenSource } from './token-source.ts'
import type { Context } from './view.ts'

export interface PanelContext extends Context {
  readonly traceId: string
  readonly request: TracedRequest
  readonly tokens: TokenSource
}
