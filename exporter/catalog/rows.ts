/**
 * What is read from the catalogue's database: rows of its tables as the catalogue's types. Every
 * lookup by trace, key or fingerprint goes through an index, so that it costs the same in a large
 * catalogue; the tests hold the query plans to that. Not here: lists (catalog-list.ts).
 */

import type { DatabaseSync, SQLInputValue, SQLOutputValue } from 'node:sqlite'
import type { RequestSummary } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import type { CatalogRequest } from './catalog-request.ts'
import type { AliasEntry, RequestEntry, SeriesRange, VocabularyEntry } from './description.ts'
import type { RequestPage } from './list.ts'
import { type ListFilter, listQuery, nextCursor } from './list.ts'
import { isOfRequestSql, isPartSql } from './parallel.ts'
import type { RequestKey } from './sent.ts'

export interface CatalogFile {
  readonly key: string
  readonly dataset: string
  readonly bytes: number
  readonly rows: number
  /** Where everything but payloads begins; null where payloads and other columns alternate. */
  readonly tail_start: number | null
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

/** Where one part of a vocabulary is. */
export interface CatalogVocabularyPart extends Omit<VocabularyEntry, 'fingerprint'> {
  readonly key: string
}

/** All that the catalogue has of one request, for its index in a bucket. */
export interface WholeRequest {
  readonly request: RequestEntry
  readonly aliases: readonly AliasEntry[]
  readonly files: readonly CatalogFile[]
  readonly series: readonly CatalogSeries[]
  /** The parts of its model's vocabulary; empty when it is not known. */
  readonly vocabulary: readonly CatalogVocabularyPart[]
}

/** Columns of a CatalogRequest; what is stored of it is summed from its series. */
const requestColumns = `r.*,
  (SELECT coalesce(sum(s.bytes), 0) FROM series s WHERE s.trace_id = r.trace_id
    AND s.request_id = r.request_id AND ${isOfRequestSql('s', 'r')}) AS bytes_stored,
  (SELECT coalesce(sum(s.row_end - s.row_start), 0) FROM series s WHERE s.trace_id = r.trace_id
    AND s.request_id = r.request_id AND ${isOfRequestSql('s', 'r')}) AS tensors_stored,
  (SELECT max(a.trace_id) FROM aliases a WHERE a.stored_trace_id = r.trace_id
    AND a.request_id = r.request_id AND a.producer = r.producer) AS caller_trace_id`

/** Rows of the trace ?1: those stored under it, and those of requests that are known by it. */
function ofTrace(table: string): string {
  return `${table}.trace_id IN
      (SELECT ?1 UNION SELECT stored_trace_id FROM aliases WHERE trace_id = ?1)
    AND (${table}.trace_id = ?1 OR EXISTS (SELECT 1 FROM aliases a WHERE a.trace_id = ?1
      AND a.stored_trace_id = ${table}.trace_id AND a.request_id = ${table}.request_id
      AND a.producer = ${table}.producer))`
}

const requestsSql = `SELECT ${requestColumns} FROM requests r WHERE ${ofTrace('r')} AND NOT ${isPartSql('r')}
  ORDER BY r.started_at, r.request_id, r.producer LIMIT ?`

const seriesOrder = `ORDER BY s.request_id, s.hook, s.layer, s.tp_rank, s.pp_rank, s.dp_rank,
  s.ep_rank, f.key, s.row_start LIMIT ?`

const ofRequest = 'trace_id = ? AND request_id = ? AND producer = ?'

/** Files that this catalogue describes whole; what was read of other exporters is left out. */
export function readFiles(database: DatabaseSync): CatalogFile[] {
  const rows = database.prepare('SELECT * FROM files WHERE imported = 0 ORDER BY key').all()
  return rows.map(fileOf)
}

export function readFile(database: DatabaseSync, key: string): CatalogFile | null {
  const row = database.prepare('SELECT * FROM files WHERE key = ?').get(key)
  return row === undefined ? null : fileOf(row)
}

/** What was read of other exporters does not count. */
export function hasNothing(database: DatabaseSync): boolean {
  return database.prepare('SELECT 1 FROM files WHERE imported = 0 LIMIT 1').get() === undefined
}

export function readRequests(database: DatabaseSync, traceId: string): CatalogRequest[] {
  const rows = database.prepare(requestsSql).all(traceId, catalogLimits.traceRequestsMax + 1)
  if (rows.length > catalogLimits.traceRequestsMax) {
    throw tooMany(`at most ${catalogLimits.traceRequestsMax} requests of one trace`)
  }
  return rows.map(requestOf)
}

export function readPage(database: DatabaseSync, filter: ListFilter): RequestPage {
  const query = listQuery(filter)
  const rows = database
    .prepare(`SELECT ${requestColumns} FROM requests r ${query.sql}`)
    .all(...query.values)
  return nextCursor(rows.map(requestOf), query.limit)
}

export function readSeries(database: DatabaseSync, filter: SeriesFilter): CatalogSeries[] {
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
  const sql = `SELECT s.*, f.key FROM series s JOIN files f ON f.id = s.file_id
    WHERE ${conditions.join(' AND ')} ${seriesOrder}`
  return limitedSeries(database, sql, values)
}

function limitedSeries(
  database: DatabaseSync,
  sql: string,
  values: readonly SQLInputValue[],
): CatalogSeries[] {
  const rows = database.prepare(sql).all(...values, catalogLimits.seriesMax + 1)
  if (rows.length > catalogLimits.seriesMax) {
    throw tooMany(`at most ${catalogLimits.seriesMax} tensors (hook × layer × rank × file)`)
  }
  return rows.map(seriesOf)
}

/** Null when there is no such request. */
export function readWhole(database: DatabaseSync, key: RequestKey): WholeRequest | null {
  const values = [key.traceId, key.requestId, key.producer]
  const row = database.prepare(`SELECT * FROM requests WHERE ${ofRequest}`).get(...values)
  if (row === undefined) return null
  const sql = `SELECT s.*, f.key FROM series s JOIN files f ON f.id = s.file_id
    WHERE s.trace_id = ? AND s.request_id = ? AND s.producer = ? ${seriesOrder}`
  const series = limitedSeries(database, sql, values)
  const request = entryOf(row)
  const fingerprint = request.summary?.model.vocabularyFingerprint
  const vocabulary = fingerprint === undefined ? [] : readVocabulary(database, fingerprint)
  const keys = [...new Set([...series, ...vocabulary].map((one) => one.key))].sort()
  const aliases = database
    .prepare(
      `SELECT * FROM aliases WHERE stored_trace_id = ? AND request_id = ? AND producer = ?
       ORDER BY trace_id`,
    )
    .all(...values)
  return {
    request,
    aliases: aliases.map(aliasOf),
    files: keys.flatMap((one) => readFile(database, one) ?? []),
    series,
    vocabulary,
  }
}

/** One place for each part; of a part that was stored several times, any. In order of the parts. */
export function readVocabulary(
  database: DatabaseSync,
  fingerprint: string,
): CatalogVocabularyPart[] {
  const rows = database
    .prepare(
      `SELECT v.part, v.parts, v.model, v.row, min(f.key) AS key FROM vocabularies v
       JOIN files f ON f.id = v.file_id WHERE v.fingerprint = ?
       GROUP BY v.part ORDER BY v.part LIMIT ?`,
    )
    .all(fingerprint, catalogLimits.vocabularyPartsMax)
  return rows.map((row) => ({
    key: textOf(row, 'key'),
    part: integerOf(row, 'part'),
    parts: integerOf(row, 'parts'),
    model: textOf(row, 'model'),
    row: integerOf(row, 'row'),
  }))
}

function tooMany(expected: string): Ring2Error {
  return new Ring2Error('RING2_E_TOO_LARGE', {
    expected,
    actual: 'more than that',
    action: 'Ask for one request, one hook or one layer.',
  })
}

const SHOWN_CHARACTERS = 40

type DatabaseRow = Record<string, SQLOutputValue>

export function textOf(row: DatabaseRow, name: string): string {
  const value = row[name]
  if (typeof value === 'string') return value
  throw unexpected(name, value)
}

export function integerOf(row: DatabaseRow, name: string): number {
  const value = row[name]
  if (typeof value === 'number') return value
  throw unexpected(name, value)
}

function nullableText(row: DatabaseRow, name: string): string | null {
  return row[name] === null ? null : textOf(row, name)
}

function nullableInteger(row: DatabaseRow, name: string): number | null {
  return row[name] === null ? null : integerOf(row, name)
}

function unexpected(name: string, value: SQLOutputValue | undefined): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a value in the catalogue's column ${name}`,
    actual: String(value),
    action: 'Run `ring2-exporter catalog rebuild`; the Parquet files hold everything.',
  })
}

function fileOf(row: DatabaseRow): CatalogFile {
  return {
    key: textOf(row, 'key'),
    dataset: textOf(row, 'dataset'),
    bytes: integerOf(row, 'bytes'),
    rows: integerOf(row, 'rows'),
    tail_start: nullableInteger(row, 'tail_start'),
  }
}

function entryOf(row: DatabaseRow): RequestEntry {
  const summary = nullableText(row, 'summary')
  return {
    trace_id: textOf(row, 'trace_id'),
    request_id: textOf(row, 'request_id'),
    producer: textOf(row, 'producer'),
    span_id: nullableText(row, 'span_id'),
    model: textOf(row, 'model'),
    model_revision: textOf(row, 'model_revision'),
    engine: textOf(row, 'engine'),
    host: textOf(row, 'host'),
    started_at: integerOf(row, 'started_at'),
    summary: summary === null ? null : parseSummary(summary),
  }
}

/** SQLite does not see damage inside of a text; what is no JSON was damaged. */
function parseSummary(text: string): RequestSummary {
  try {
    return JSON.parse(text)
  } catch {
    throw unexpected('summary', text.slice(0, SHOWN_CHARACTERS))
  }
}

function requestOf(row: DatabaseRow): CatalogRequest {
  return {
    ...entryOf(row),
    ended_at: nullableInteger(row, 'ended_at'),
    caller_trace_id: nullableText(row, 'caller_trace_id'),
    tokens: nullableInteger(row, 'tokens'),
    prompt_tokens: nullableInteger(row, 'prompt_tokens'),
    steps: nullableInteger(row, 'steps'),
    verdict: textOf(row, 'verdict'),
    completeness: textOf(row, 'completeness'),
    bytes_stored: integerOf(row, 'bytes_stored'),
    tensors_stored: integerOf(row, 'tensors_stored'),
    summary: nullableText(row, 'summary'),
  }
}

function aliasOf(row: DatabaseRow): AliasEntry {
  return {
    trace_id: textOf(row, 'trace_id'),
    span_id: textOf(row, 'span_id'),
    stored_trace_id: textOf(row, 'stored_trace_id'),
    request_id: textOf(row, 'request_id'),
    producer: textOf(row, 'producer'),
    parent_span_id: nullableText(row, 'parent_span_id'),
    trace_state: nullableText(row, 'trace_state'),
    parent_started_at: nullableInteger(row, 'parent_started_at'),
    parent_ended_at: nullableInteger(row, 'parent_ended_at'),
  }
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
