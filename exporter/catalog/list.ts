/**
 * Listing requests newest first: filters, and a cursor that stays right while requests are added.
 *
 * The cursor holds the sort key of the last request of a page, so the next page starts behind it
 * whatever has come since. It is opaque to users, and checked like any other input.
 */

import type { SQLInputValue } from 'node:sqlite'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import type { CatalogRequest } from './catalog-request.ts'
import { isPartSql } from './parallel.ts'

export interface ListFilter {
  /** Only requests that started at or after this, in microseconds since the epoch. */
  readonly sinceMicros?: number
  readonly model?: string
  readonly verdict?: string
  /** Only requests with a finding: their verdict is neither `ok` nor `unknown`. */
  readonly bad?: boolean
  /** The beginning of the trace id, also of the caller's, or any part of the request id. */
  readonly search?: string
  readonly limit?: number
  readonly cursor?: string
}

export interface RequestPage {
  readonly requests: readonly CatalogRequest[]
  /** Null on the last page. */
  readonly nextCursor: string | null
}

export interface ListQuery {
  readonly sql: string
  readonly values: readonly SQLInputValue[]
  readonly limit: number
}

export function listQuery(filter: ListFilter): ListQuery {
  const conditions: string[] = [`NOT ${isPartSql('r')}`]
  const values: SQLInputValue[] = []
  if (filter.sinceMicros !== undefined) {
    conditions.push('r.started_at >= ?')
    values.push(filter.sinceMicros)
  }
  if (filter.model !== undefined) {
    conditions.push('r.model = ?')
    values.push(filter.model)
  }
  if (filter.verdict !== undefined) {
    conditions.push('r.verdict = ?')
    values.push(filter.verdict)
  }
  if (filter.bad === true) conditions.push("r.verdict NOT IN ('ok', 'unknown')")
  if (filter.search !== undefined) {
    // By comparing texts and not by LIKE: no character of an id means anything but itself. A trace id
    // may be asked for in upper case.
    conditions.push(`(substr(r.trace_id, 1, length(?)) = lower(?) OR instr(r.request_id, ?) > 0
      OR EXISTS (SELECT 1 FROM aliases a WHERE a.stored_trace_id = r.trace_id
        AND a.request_id = r.request_id AND a.producer = r.producer
        AND substr(a.trace_id, 1, length(?)) = lower(?)))`)
    values.push(...Array.from({ length: 5 }, () => filter.search ?? ''))
  }
  if (filter.cursor !== undefined) {
    const [startedAt, ...rest] = parseCursor(filter.cursor)
    conditions.push(`(r.started_at < ? OR (r.started_at = ?
      AND (r.trace_id, r.request_id, r.producer) > (?, ?, ?)))`)
    values.push(startedAt, startedAt, ...rest)
  }
  const wanted = filter.limit ?? catalogLimits.pageRowsDefault
  const limit = Math.min(Math.max(1, wanted), catalogLimits.pageRowsMax)
  const where = `WHERE ${conditions.join(' AND ')}`
  // One row more than asked tells whether there is a next page.
  return {
    sql: `${where} ORDER BY r.started_at DESC, r.trace_id, r.request_id, r.producer LIMIT ?`,
    values: [...values, limit + 1],
    limit,
  }
}

/** Makes a page of up to `limit` requests from one more than that. */
export function nextCursor(rows: readonly CatalogRequest[], limit: number): RequestPage {
  const requests = rows.slice(0, limit)
  const last = requests.at(-1)
  if (rows.length <= limit || last === undefined) return { requests, nextCursor: null }
  const key = [last.started_at, last.trace_id, last.request_id, last.producer]
  return { requests, nextCursor: Buffer.from(JSON.stringify(key)).toString('base64url') }
}

function parseCursor(cursor: string): [number, string, string, string] {
  const key = decode(cursor)
  if (Array.isArray(key) && key.length === 4) {
    const [startedAt, traceId, requestId, producer] = key
    if (
      Number.isSafeInteger(startedAt) &&
      typeof traceId === 'string' &&
      typeof requestId === 'string' &&
      typeof producer === 'string'
    ) {
      return [startedAt, traceId, requestId, producer]
    }
  }
  throw new Ring2Error('RING2_E_QUERY', {
    expected: 'the next_cursor of an earlier answer as cursor',
    actual: JSON.stringify(cursor.slice(0, 80)),
  })
}

function decode(cursor: string): unknown {
  try {
    return JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch {
    // Not JSON: the caller names what it expected.
    return null
  }
}
