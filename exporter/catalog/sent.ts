/**
 * Which requests' spans have been sent: what a restarted exporter needs to send the others. Part of
 * the catalogue's database; it is the one part that the Parquet files do not hold, and losing it
 * costs no data: spans that waited for the Collector when the exporter was killed are then not sent.
 *
 * Only requests that ended since tracking began are told of, so that whoever switches OTLP on, or
 * comes from an older version, does not send the whole store.
 */

import type { DatabaseSync } from 'node:sqlite'
import { TRACE_FLAG_SAMPLED } from '../../collector/ids.ts'
import type { RequestInfo, RequestSummary } from '../../collector/records.ts'
import { catalogLimits } from '../limits.ts'
import { producerLabel } from '../parquet/schema.ts'

/** A request as the store names it. */
export interface RequestKey {
  readonly traceId: string
  readonly requestId: string
  readonly producer: string
}

export interface Unsent {
  /** The oldest first. */
  readonly keys: readonly RequestKey[]
  /** Older ones, beyond the bound, that are not sent any more. */
  readonly beyond: number
}

export function requestKey({ request, producer }: RequestSummary): RequestKey {
  return {
    traceId: request.storedTraceId ?? request.traceId,
    requestId: request.requestId,
    producer: producerLabel(producer),
  }
}

export const sentTable = `
CREATE TABLE IF NOT EXISTS spans_sent (
  trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  producer TEXT NOT NULL,
  sent_at INTEGER NOT NULL,
  PRIMARY KEY (trace_id, request_id, producer)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spans_sent_by_time ON spans_sent (sent_at);
`

/** Says since when every request is tracked. */
const marker = ['', '', ''] as const

const insert = `INSERT OR IGNORE INTO spans_sent (trace_id, request_id, producer, sent_at)
  VALUES (?, ?, ?, ?)`

export function markSent(
  database: DatabaseSync,
  keys: readonly RequestKey[],
  atMicros: number,
): void {
  const statement = database.prepare(insert)
  for (const { traceId, requestId, producer } of keys) {
    statement.run(traceId, requestId, producer, atMicros)
  }
}

/** Ends tracking: spans are not sent at all. */
export function stopTracking(database: DatabaseSync): void {
  database.prepare('DELETE FROM spans_sent WHERE trace_id = ?').run(marker[0])
}

/** Begins tracking, or goes on, and forgets what is too old to matter. */
export function readUnsent(database: DatabaseSync, atMicros: number): Unsent {
  const oldest = atMicros - catalogLimits.unsentMicrosMax
  database
    .prepare("DELETE FROM spans_sent WHERE sent_at < ? AND trace_id != ''")
    .run(oldest - catalogLimits.unsentMicrosMax)
  database.prepare(insert).run(...marker, atMicros)
  const began = database
    .prepare(
      'SELECT sent_at FROM spans_sent WHERE trace_id = ? AND request_id = ? AND producer = ?',
    )
    .get(...marker)
  const since = Math.max(oldest, Number(began?.sent_at ?? atMicros))
  const unsent = `FROM requests r WHERE r.started_at >= ?1 AND r.ended_at >= ?2
    AND NOT EXISTS (SELECT 1 FROM spans_sent s WHERE s.trace_id = r.trace_id
      AND s.request_id = r.request_id AND s.producer = r.producer)`
  // What ran for long began before the time from which its end counts.
  const from = [since - catalogLimits.unsentMicrosMax, since] as const
  const rows = database
    .prepare(
      `SELECT r.trace_id, r.request_id, r.producer ${unsent} ORDER BY r.started_at DESC LIMIT ?3`,
    )
    .all(...from, catalogLimits.unsentRequestsMax)
  const total = Number(database.prepare(`SELECT count(*) AS n ${unsent}`).get(...from)?.n ?? 0)
  const keys = rows.map((row) => ({
    traceId: String(row.trace_id),
    requestId: String(row.request_id),
    producer: String(row.producer),
  }))
  return { keys: keys.reverse(), beyond: total - rows.length }
}

/**
 * As its spans are sent: a request whose context came after its rows, in the caller's trace.
 *
 * @returns null when it has been deleted in the meantime.
 */
export function readSummary(database: DatabaseSync, key: RequestKey): RequestSummary | null {
  const row = database
    .prepare('SELECT summary FROM requests WHERE trace_id = ? AND request_id = ? AND producer = ?')
    .get(key.traceId, key.requestId, key.producer)
  if (typeof row?.summary !== 'string') return null
  const summary: RequestSummary = JSON.parse(row.summary)
  return { ...summary, request: inCallersTrace(database, summary.request, key) }
}

function inCallersTrace(database: DatabaseSync, request: RequestInfo, key: RequestKey) {
  // Written twice it has one row; of several traces the same one is taken as the lists show.
  const alias = database
    .prepare(
      `SELECT * FROM aliases WHERE stored_trace_id = ? AND request_id = ? AND producer = ?
       ORDER BY trace_id DESC LIMIT 1`,
    )
    .get(key.traceId, key.requestId, key.producer)
  if (alias === undefined) return request
  const { parent_started_at: startedAt, parent_ended_at: endedAt } = alias
  const moved: RequestInfo = {
    ...request,
    traceId: String(alias.trace_id),
    spanId: String(alias.span_id),
    parentSpanId: textOrNull(alias.parent_span_id),
    traceState: textOrNull(alias.trace_state),
    traceFlags: TRACE_FLAG_SAMPLED,
    traceOrigin: 'tap',
    storedTraceId: key.traceId,
  }
  if (typeof startedAt !== 'number' || typeof endedAt !== 'number') return moved
  return { ...moved, parentWindow: { startedAtMicros: startedAt, endedAtMicros: endedAt } }
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null
}
