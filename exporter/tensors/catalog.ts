/**
 * The catalogue: which file and which of its rows hold a trace's tensors, and which requests there
 * are, newest first. It never lists the store and never opens a Parquet file (see rebuild.ts).
 *
 * A trace is found by the id that its rows have, and by that of a caller whose context came late.
 *
 * Invariants: adding a description twice leaves one; an open request becomes an ended one when its
 * summary comes, in whatever order files are added. Calls are synchronous and throw RING2_E_STORE.
 */

import type { DatabaseSync, SQLInputValue, SQLOutputValue } from 'node:sqlite'
import type { RequestSummary } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import { catalogError, openDatabase } from './catalog-database.ts'
import {
  type CatalogRequest,
  type ListFilter,
  listQuery,
  nextCursor,
  type RequestPage,
} from './catalog-list.ts'
import {
  markSent,
  type RequestKey,
  readSummary,
  readUnsent,
  stopTracking,
  type Unsent,
} from './catalog-sent.ts'
import type { FileDescription, RequestEntry, SeriesRange } from './description.ts'

export interface CatalogFile {
  readonly key: string
  readonly dataset: string
  readonly bytes: number
  readonly rows: number
}

/** A series in one file. */
export interface CatalogSeries extends SeriesRange {
  readonly key: string
}

export interface SeriesFilter {
  readonly traceId: string
  readonly requestId?: string
  readonly producer?: string
  readonly hook?: string
  readonly layer?: number
}

export interface Catalog {
  add(description: FileDescription): void
  has(key: string): boolean
  remove(key: string): void
  /** Replaces everything by these descriptions, in one transaction. */
  replaceAll(descriptions: readonly FileDescription[]): void
  files(): CatalogFile[]
  requests(traceId: string): CatalogRequest[]
  series(filter: SeriesFilter): CatalogSeries[]
  list(filter: ListFilter): RequestPage
  /** The spans of these requests need not be sent again. */
  markSent(keys: readonly RequestKey[], atMicros: number): void
  /** Requests whose spans were never sent; from now on they are tracked. */
  unsent(atMicros: number): Unsent
  /** Spans are not sent: nothing is tracked. */
  stopTracking(): void
  /** An ended request as its spans are sent: in the caller's trace, where that came later. */
  summary(key: RequestKey): RequestSummary | null
  close(): void
}

const insertSeries = `INSERT INTO series (trace_id, request_id, hook, layer, tp_rank, pp_rank,
  dp_rank, ep_rank, file_id, row_start, row_end, token_start, token_end, dtype, bytes, producer)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const insertRequest = `INSERT INTO requests (trace_id, request_id, producer, span_id, model,
  model_revision, engine, host, started_at, ended_at, tokens, prompt_tokens, steps, verdict,
  completeness, summary) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const keepEarliest = `ON CONFLICT (trace_id, request_id, producer) DO UPDATE
  SET started_at = min(started_at, excluded.started_at) WHERE summary IS NULL`

const takeSummary = `ON CONFLICT (trace_id, request_id, producer) DO UPDATE SET
  span_id = excluded.span_id, model = excluded.model, model_revision = excluded.model_revision,
  engine = excluded.engine, host = excluded.host, started_at = excluded.started_at,
  ended_at = excluded.ended_at, tokens = excluded.tokens, prompt_tokens = excluded.prompt_tokens,
  steps = excluded.steps, verdict = excluded.verdict, completeness = excluded.completeness,
  summary = excluded.summary`

/** Columns of a CatalogRequest; what is stored of it is summed from its series. */
const requestColumns = `r.*,
  (SELECT coalesce(sum(s.bytes), 0) FROM series s WHERE s.trace_id = r.trace_id
    AND s.request_id = r.request_id AND s.producer = r.producer) AS bytes_stored,
  (SELECT coalesce(sum(s.row_end - s.row_start), 0) FROM series s WHERE s.trace_id = r.trace_id
    AND s.request_id = r.request_id AND s.producer = r.producer) AS tensors_stored,
  (SELECT max(a.trace_id) FROM aliases a WHERE a.stored_trace_id = r.trace_id
    AND a.request_id = r.request_id AND a.producer = r.producer) AS caller_trace_id`

const insertAlias = `INSERT OR REPLACE INTO aliases
  (trace_id, stored_trace_id, request_id, producer, span_id, parent_span_id, trace_state,
  parent_started_at, parent_ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

/** Rows of the trace ?1: those stored under it, and those of requests that are known by it. */
function ofTrace(table: string): string {
  return `${table}.trace_id IN
      (SELECT ?1 UNION SELECT stored_trace_id FROM aliases WHERE trace_id = ?1)
    AND (${table}.trace_id = ?1 OR EXISTS (SELECT 1 FROM aliases a WHERE a.trace_id = ?1
      AND a.stored_trace_id = ${table}.trace_id AND a.request_id = ${table}.request_id
      AND a.producer = ${table}.producer))`
}

/** Opens the catalogue and creates it when it is not there. */
export function openCatalog(path: string): Catalog {
  const database = openDatabase(path)

  function guard<T>(doing: string, act: () => T): T {
    try {
      return act()
    } catch (error) {
      throw catalogError(doing, path, error)
    }
  }

  function transaction(act: () => void): void {
    database.exec('BEGIN IMMEDIATE')
    try {
      act()
      database.exec('COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
  }

  function replaceAll(descriptions: readonly FileDescription[]): void {
    transaction(() => {
      database.exec(
        'DELETE FROM series; DELETE FROM requests; DELETE FROM aliases; DELETE FROM files',
      )
      for (const description of descriptions) writeDescription(database, description)
    })
  }

  return {
    add: (description) =>
      guard('write', () => transaction(() => writeDescription(database, description))),
    has: (key) =>
      guard('read', () => database.prepare('SELECT 1 FROM files WHERE key = ?').get(key)) !==
      undefined,
    remove: (key) =>
      guard('write', () => void database.prepare('DELETE FROM files WHERE key = ?').run(key)),
    replaceAll: (descriptions) => guard('write', () => replaceAll(descriptions)),
    files: () => guard('read', () => readFiles(database)),
    requests: (traceId) => guard('read', () => readRequests(database, traceId)),
    series: (filter) => guard('read', () => readSeries(database, filter)),
    list: (filter) => guard('read', () => readPage(database, filter)),
    markSent: (keys, atMicros) =>
      guard('write', () => transaction(() => markSent(database, keys, atMicros))),
    unsent: (atMicros) => guard('write', () => readUnsent(database, atMicros)),
    stopTracking: () => guard('write', () => stopTracking(database)),
    summary: (key) => guard('read', () => readSummary(database, key)),
    close: () => database.close(),
  }
}

function writeDescription(database: DatabaseSync, file: FileDescription): void {
  database.prepare('DELETE FROM files WHERE key = ?').run(file.key)
  const inserted = database
    .prepare('INSERT INTO files (key, dataset, bytes, rows) VALUES (?, ?, ?, ?)')
    .run(file.key, file.dataset, file.bytes, file.rows)
  const statement = database.prepare(insertSeries)
  for (const one of file.series) {
    statement.run(
      ...[one.trace_id, one.request_id, one.hook, one.layer],
      ...[one.tp_rank, one.pp_rank, one.dp_rank, one.ep_rank],
      ...[inserted.lastInsertRowid, one.row_start, one.row_end],
      ...[one.token_start, one.token_end, one.dtype, one.bytes, one.producer],
    )
  }
  const open = database.prepare(`${insertRequest} ${keepEarliest}`)
  const ended = database.prepare(`${insertRequest} ${takeSummary}`)
  for (const request of file.requests) {
    const statement = request.summary === null ? open : ended
    statement.run(...requestValues(request))
  }
  const alias = database.prepare(insertAlias)
  for (const one of file.aliases ?? []) {
    alias.run(
      ...[one.trace_id, one.stored_trace_id, one.request_id, one.producer, one.span_id],
      ...[one.parent_span_id ?? null, one.trace_state ?? null],
      ...[one.parent_started_at ?? null, one.parent_ended_at ?? null],
    )
  }
}

function requestValues(request: RequestEntry): SQLInputValue[] {
  const summary = request.summary
  return [
    ...[request.trace_id, request.request_id, request.producer, request.span_id],
    ...[request.model, request.model_revision, request.engine, request.host, request.started_at],
    summary?.endedAtMicros ?? null,
    summary?.tokens ?? null,
    summary?.promptTokens ?? null,
    summary?.steps ?? null,
    summary?.verdict ?? 'unknown',
    summary?.completeness.state ?? 'unknown',
    summary === null ? null : JSON.stringify(summary),
  ]
}

type DatabaseRow = Record<string, SQLOutputValue>

function textOf(row: DatabaseRow, name: string): string {
  const value = row[name]
  if (typeof value === 'string') return value
  throw unexpected(name, value)
}

function integerOf(row: DatabaseRow, name: string): number {
  const value = row[name]
  if (typeof value === 'number') return value
  throw unexpected(name, value)
}

function unexpected(name: string, value: SQLOutputValue | undefined): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a value in the catalogue's column ${name}`,
    actual: String(value),
    action: 'Run `ring2-exporter catalog rebuild`; the Parquet files hold everything.',
  })
}

function readFiles(database: DatabaseSync): CatalogFile[] {
  const rows = database.prepare('SELECT key, dataset, bytes, rows FROM files ORDER BY key').all()
  return rows.map((row) => ({
    key: textOf(row, 'key'),
    dataset: textOf(row, 'dataset'),
    bytes: integerOf(row, 'bytes'),
    rows: integerOf(row, 'rows'),
  }))
}

function readRequests(database: DatabaseSync, traceId: string): CatalogRequest[] {
  const rows = database
    .prepare(
      `SELECT ${requestColumns} FROM requests r WHERE ${ofTrace('r')}
       ORDER BY r.started_at, r.request_id, r.producer LIMIT ?`,
    )
    .all(traceId, catalogLimits.traceRequestsMax + 1)
  if (rows.length > catalogLimits.traceRequestsMax) {
    throw tooMany(`at most ${catalogLimits.traceRequestsMax} requests of one trace`)
  }
  return rows.map(requestOf)
}

function readPage(database: DatabaseSync, filter: ListFilter): RequestPage {
  const query = listQuery(filter)
  const rows = database
    .prepare(`SELECT ${requestColumns} FROM requests r ${query.sql}`)
    .all(...query.values)
  return nextCursor(rows.map(requestOf), query.limit)
}

function requestOf(row: DatabaseRow): CatalogRequest {
  const nullableText = (name: string) => (row[name] === null ? null : textOf(row, name))
  const nullableInteger = (name: string) => (row[name] === null ? null : integerOf(row, name))
  return {
    trace_id: textOf(row, 'trace_id'),
    request_id: textOf(row, 'request_id'),
    producer: textOf(row, 'producer'),
    span_id: nullableText('span_id'),
    model: textOf(row, 'model'),
    model_revision: textOf(row, 'model_revision'),
    engine: textOf(row, 'engine'),
    host: textOf(row, 'host'),
    started_at: integerOf(row, 'started_at'),
    ended_at: nullableInteger('ended_at'),
    caller_trace_id: nullableText('caller_trace_id'),
    tokens: nullableInteger('tokens'),
    prompt_tokens: nullableInteger('prompt_tokens'),
    steps: nullableInteger('steps'),
    verdict: textOf(row, 'verdict'),
    completeness: textOf(row, 'completeness'),
    bytes_stored: integerOf(row, 'bytes_stored'),
    tensors_stored: integerOf(row, 'tensors_stored'),
    summary: nullableText('summary'),
  }
}

function readSeries(database: DatabaseSync, filter: SeriesFilter): CatalogSeries[] {
  const conditions = [ofTrace('s')]
  const values: SQLInputValue[] = [filter.traceId]
  const add = (column: string, value: SQLInputValue | undefined) => {
    if (value === undefined) return
    conditions.push(`s.${column} = ?`)
    values.push(value)
  }
  add('request_id', filter.requestId)
  add('producer', filter.producer)
  add('hook', filter.hook)
  add('layer', filter.layer)
  const rows = database
    .prepare(
      `SELECT s.*, f.key FROM series s JOIN files f ON f.id = s.file_id
       WHERE ${conditions.join(' AND ')}
       ORDER BY s.request_id, s.hook, s.layer, s.tp_rank, s.pp_rank, s.dp_rank, s.ep_rank,
         f.key, s.row_start LIMIT ?`,
    )
    .all(...values, catalogLimits.seriesMax + 1)
  if (rows.length > catalogLimits.seriesMax) {
    throw tooMany(`at most ${catalogLimits.seriesMax} tensors (hook × layer × rank × file)`)
  }
  return rows.map(seriesOf)
}

function tooMany(expected: string): Ring2Error {
  return new Ring2Error('RING2_E_TOO_LARGE', {
    expected,
    actual: 'more than that',
    action: 'Ask for one request, one hook or one layer.',
  })
}

function seriesOf(row: DatabaseRow): CatalogSeries {
  return {
    key: textOf(row, 'key'),
    trace_id: textOf(row, 'trace_id'),
    request_id: textOf(row, 'request_id'),
    producer: textOf(row, 'producer'),
    hook: textOf(row, 'hook'),
    layer: integerOf(row, 'layer'),
    tp_rank: integerOf(row, 'tp_rank'),
    pp_rank: integerOf(row, 'pp_rank'),
    dp_rank: integerOf(row, 'dp_rank'),
    ep_rank: integerOf(row, 'ep_rank'),
    dtype: textOf(row, 'dtype'),
    row_start: integerOf(row, 'row_start'),
    row_end: integerOf(row, 'row_end'),
    token_start: integerOf(row, 'token_start'),
    token_end: integerOf(row, 'token_end'),
    bytes: integerOf(row, 'bytes'),
  }
}
