/**
 * Asks the exporter's API: the bearer token, errors as problems, cancellation. The token travels in a
 * header alone, never in an address.
 */
import { limits } from './limits.ts'

/** RFC 9457, as the exporter answers it; made here for what never reached it. */
export interface Problem {
  readonly title: string
  readonly status: number
  readonly code: string
  readonly expected: string
  readonly actual: string
  readonly action: string
}

export type Answer<T> =
  | { readonly status: 'success'; readonly value: T }
  | { readonly status: 'problem'; readonly problem: Problem }
  | { readonly status: 'aborted' }

export type Query = Readonly<Record<string, string | number | null | undefined>>

export interface Api {
  get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<Answer<T>>
  /** Address of the API, as it can be copied into commands. */
  readonly origin: string
  /** Whether a token is sent. */
  authorized(): boolean
}

export interface TokenKeeper {
  token(): string | null
  /** Asks the person; null when they would rather not. */
  ask(refused: boolean): Promise<string | null>
}

/** @param base path in front of all routes, for an exporter behind a proxy; without a slash at the end. */
export function createApi(base: string, keeper: TokenKeeper): Api {
  async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Answer<T>> {
    const sent = keeper.token()
    const answer = await once<T>(`${base}${path}${queryText(query)}`, sent, signal)
    if (answer.status !== 'problem' || answer.problem.status !== 401) return answer
    // Another request may have asked for the token while this one was on its way.
    const token = keeper.token() === sent ? await keeper.ask(sent !== null) : keeper.token()
    return token === null ? answer : get<T>(path, query, signal)
  }
  return {
    get,
    origin: `${location.origin}${base}`,
    authorized: () => keeper.token() !== null,
  }
}

function queryText(query: Query): string {
  const given = Object.entries(query).flatMap(([name, value]) =>
    value === null || value === undefined || value === '' ? [] : [[name, String(value)]],
  )
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`
}

async function once<T>(
  address: string,
  token: string | null,
  signal: AbortSignal | undefined,
): Promise<Answer<T>> {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` }
  try {
    const reply = await fetch(address, { headers, ...(signal === undefined ? {} : { signal }) })
    if (reply.ok) return { status: 'success', value: (await reply.json()) as T }
    return { status: 'problem', problem: await problemOf(reply) }
  } catch (error) {
    if (signal?.aborted) return { status: 'aborted' }
    return { status: 'problem', problem: unreachable(error) }
  }
}

async function problemOf(reply: Response): Promise<Problem> {
  const text = (await reply.text()).slice(0, limits.problemCharacters)
  const body = parsed(text)
  const field = (name: string, otherwise: string): string => {
    const value = body?.[name]
    return typeof value === 'string' ? value : otherwise
  }
  return {
    title: field('title', `The exporter answered ${reply.status}.`),
    status: reply.status,
    code: field('code', `HTTP ${reply.status}`),
    expected: field('expected', 'an answer of the exporter'),
    actual: field('actual', text.slice(0, 200)),
    action: field('action', 'Check what stands between this page and the exporter.'),
  }
}

function parsed(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

function unreachable(error: unknown): Problem {
  return {
    title: 'The exporter cannot be reached.',
    status: 0,
    code: 'RING2_E_UNREACHABLE',
    expected: `an answer from ${location.origin}`,
    actual: error instanceof Error ? error.message : String(error),
    action: 'Look whether the exporter runs and the network is up, then try again.',
  }
}
