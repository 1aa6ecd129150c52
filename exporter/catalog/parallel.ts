/**
 * Requests that ranks of a parallel model ran together: several producers have tensors of one request,
 * and one of them has its summary, which names the others.
 *
 * A producer that is a part of a request that has ended is no request of its own: lists leave it out.
 */
import type { ParallelInfo, RequestSummary } from '../../collector/records.ts'
import { producerLabel } from '../parquet/schema.ts'
import type { CatalogRequest } from './catalog-request.ts'

/** SQL: labels of the producers that a summary names, one row each. */
function labels(summary: string): string {
  return `SELECT json_extract(p.value, '$.producer.segment') || '-' ||
    json_extract(p.value, '$.producer.boot') FROM json_each(${summary}, '$.parallel.parts') p`
}

/** SQL: whether a row of `requests` is only a part of one that another row tells of. */
export function isPartSql(row: string): string {
  return `(${row}.summary IS NULL AND EXISTS (SELECT 1 FROM requests o
    WHERE o.trace_id = ${row}.trace_id AND o.request_id = ${row}.request_id
    AND o.summary IS NOT NULL AND ${row}.producer IN (${labels('o.summary')})))`
}

/** SQL: whether a series is of the request of a row of `requests`, or of a part of it. */
export function isOfRequestSql(series: string, row: string): string {
  return `(${series}.producer = ${row}.producer
    OR ${series}.producer IN (${labels(`${row}.summary`)}))`
}

/** The ranks that ran a request; null for a model in one process, and while the request goes on. */
export function parallelOf(request: Pick<CatalogRequest, 'summary'>): ParallelInfo | null {
  if (request.summary === null) return null
  const summary: Partial<RequestSummary> = JSON.parse(request.summary)
  return summary.parallel ?? null
}

/** Every producer that has tensors of the request. */
export function producersOf(request: CatalogRequest): ReadonlySet<string> {
  const parts = parallelOf(request)?.parts ?? []
  return new Set([request.producer, ...parts.map(({ producer }) => producerLabel(producer))])
}

/**
 * The producers meant by the name of one: all of a request's, when it is the one that told of the
 * request; else that one alone.
 */
export function producersMeant(
  requests: readonly CatalogRequest[],
  producer: string,
): ReadonlySet<string> {
  const told = requests.filter((one) => one.producer === producer)
  return new Set([producer, ...told.flatMap((one) => [...producersOf(one)])])
}

/** The request that a producer has tensors of. */
export function requestOf(
  requests: readonly CatalogRequest[],
  requestId: string,
  producer: string,
): CatalogRequest | undefined {
  const named = requests.filter((one) => one.request_id === requestId)
  return (
    named.find((one) => one.producer === producer) ??
    named.find((one) => producersOf(one).has(producer))
  )
}
