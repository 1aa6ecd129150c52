/**
 * The tokens of one request, by pages: the text view draws a page, the other views look up the names of
 * positions. A page is asked for once; what failed may be asked for again.
 */
import type { Answer, Api } from './api.ts'
import { limits } from './limits.ts'
import type { Token, TokenPage, TracedRequest } from './shapes.ts'

export interface TokenSource {
  /** First position of the page that has the position. */
  startOf(position: number): number
  page(start: number): Promise<Answer<TokenPage>>
  /** The token when its page is here; else undefined, and its page is asked for. */
  named(position: number): Token | undefined
  /** Told when another page has come. @returns ends that. */
  watch(listener: () => void): () => void
}

export function createTokenSource(api: Api, traceId: string, request: TracedRequest): TokenSource {
  const asked = new Map<number, Promise<Answer<TokenPage>>>()
  const pages = new Map<number, TokenPage>()
  const failed = new Set<number>()
  const listeners = new Set<() => void>()
  const startOf = (position: number): number =>
    Math.floor(position / limits.tokensPerPage) * limits.tokensPerPage

  function page(start: number): Promise<Answer<TokenPage>> {
    const known = asked.get(start)
    if (known !== undefined) return known
    const asking = api.get<TokenPage>(`/v1/traces/${traceId}/tokens`, {
      request_id: request.request_id,
      producer: request.producer,
      start,
      limit: limits.tokensPerPage,
    })
    asked.set(start, asking)
    void asking.then((answer) => {
      if (answer.status !== 'success') {
        // Names are an addition: only a new page or a new look at the text asks again.
        failed.add(start)
        asked.delete(start)
        return
      }
      pages.set(start, answer.value)
      for (const listener of listeners) listener()
    })
    return asking
  }

  function named(position: number): Token | undefined {
    const start = startOf(position)
    const found = pages.get(start)
    if (found === undefined && !failed.has(start)) void page(start)
    return found?.tokens[position - found.start]
  }
  function watch(listener: () => void): () => void {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  return { startOf, page, named, watch }
}
