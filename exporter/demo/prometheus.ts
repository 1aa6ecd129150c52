/** What Prometheus' own API says of the exporter's metrics. */
import { getJson } from './http.ts'

export interface PrometheusEvidence {
  /** Series of the exporter that have a value now; a native histogram is one. */
  readonly series: number
  readonly exemplar_trace_ids: readonly string[]
  readonly native_histograms: number
}

/** Seconds of Unix time. */
export interface Period {
  readonly from: number
  readonly to: number
}

export interface Sample {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly [number, string]
  readonly histogram?: readonly [number, { readonly count: string; readonly sum: string }]
}

interface Answer<T> {
  readonly data: T
}

/** Every metric of the exporter has this prefix. */
const ours = '{__name__=~"ring2_.+"}'

/** An instant query. @throws Ring2Error when Prometheus refuses it. */
export async function query(prometheus: string, expression: string): Promise<readonly Sample[]> {
  const answer = await getJson<Answer<{ result: readonly Sample[] }>>(
    queryUrl(prometheus, expression),
  )
  return answer.data.result
}

export function queryUrl(prometheus: string, expression: string): string {
  return `${prometheus}/api/v1/query?${new URLSearchParams({ query: expression })}`
}

/** The value of a query that gives one series, or 0 when it gives none. */
export async function queryNumber(prometheus: string, expression: string): Promise<number> {
  return Number((await query(prometheus, expression)).at(0)?.value?.[1] ?? 0)
}

/** Whether a query had any sample between two times, in seconds of Unix time. */
export async function hadSamples(
  prometheus: string,
  expression: string,
  start: number,
  end: number,
): Promise<boolean> {
  const url = rangeUrl(prometheus, expression, { from: start, to: end }, 1)
  return (await getJson<Answer<{ result: readonly unknown[] }>>(url)).data.result.length > 0
}

/** Trace ids of the exemplars of the last hour. */
export async function exemplarTraceIds(prometheus: string, expression = ours): Promise<string[]> {
  const now = Date.now() / 1000
  const url = exemplarsUrl(prometheus, expression, { from: now - 3600, to: now + 60 })
  const found =
    await getJson<Answer<readonly { exemplars: readonly { labels: Record<string, string> }[] }[]>>(
      url,
    )
  const ids = found.data.flatMap(({ exemplars }) =>
    exemplars.flatMap(({ labels }) => labels.trace_id ?? []),
  )
  return [...new Set(ids)].sort()
}

export async function prometheusEvidence(prometheus: string): Promise<PrometheusEvidence> {
  const series = await query(prometheus, ours)
  return {
    series: series.length,
    exemplar_trace_ids: await exemplarTraceIds(prometheus),
    native_histograms: series.filter(({ histogram }) => histogram !== undefined).length,
  }
}

/** @param step seconds between two points. */
export function rangeUrl(
  prometheus: string,
  expression: string,
  { from, to }: Period,
  step: number,
): string {
  const words = { query: expression, start: `${from}`, end: `${to}`, step: `${step}` }
  return `${prometheus}/api/v1/query_range?${new URLSearchParams(words)}`
}

export function exemplarsUrl(prometheus: string, expression: string, { from, to }: Period): string {
  const words = { query: expression, start: `${from}`, end: `${to}` }
  return `${prometheus}/api/v1/query_exemplars?${new URLSearchParams(words)}`
}

/** A page that shows the query as a graph, with its exemplars. */
export function graphUrl(prometheus: string, expression: string, { from, to }: Period): string {
  const words = {
    'g0.expr': expression,
    'g0.tab': '0',
    'g0.range_input': `${Math.ceil(to - from)}s`,
    'g0.end_input': new Date(to * 1000).toISOString().slice(0, 19).replace('T', ' '),
    'g0.show_exemplars': '1',
  }
  return `${prometheus}/graph?${new URLSearchParams(words)}`
}
