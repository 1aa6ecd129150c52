/**
 * What is written into the catalogue's database: the description of a file. Costs the size of what
 * is written, whatever the catalogue holds already. The caller has begun a transaction. Not here:
 * removing requests (catalog-removal.ts).
 */

import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import type {
  AliasEntry,
  FileDescription,
  RequestEntry,
  SeriesRange,
  VocabularyEntry,
} from './description.ts'

const seriesInsert = `INSERT OR REPLACE INTO series (trace_id, request_id, hook, layer, tp_rank,
  pp_rank, dp_rank, ep_rank, file_id, row_start, row_end, token_start, token_end, dtype, bytes,
  producer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const requestInsert = `INSERT INTO requests (trace_id, request_id, producer, span_id, model,
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

const aliasInsert = `INSERT OR REPLACE INTO aliases
  (trace_id, stored_trace_id, request_id, producer, span_id, parent_span_id, trace_state,
  parent_started_at, parent_ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

/** @param imported it is another exporter's file. */
export function writeDescription(
  database: DatabaseSync,
  file: FileDescription,
  imported = false,
): void {
  database.prepare('DELETE FROM files WHERE key = ?').run(file.key)
  const { lastInsertRowid } = database
    .prepare(
      `INSERT INTO files (key, dataset, bytes, rows, tail_start, imported)
       VALUES (?, ?, ?, ?, ?, ?)`,
    )
    .run(
      ...[file.key, file.dataset, file.bytes, file.rows],
      file.tail_start ?? null,
      Number(imported),
    )
  insertSeries(database, lastInsertRowid, file.series)
  insertRequests(database, file.requests)
  insertAliases(database, file.aliases ?? [])
  insertVocabularies(database, lastInsertRowid, file.vocabularies ?? [])
  insertRequestFile(database, lastInsertRowid, file)
}

/** Which requests a file of requests or contexts has rows of, by the trace id of their tensors. */
function insertRequestFile(
  database: DatabaseSync,
  fileId: number | bigint,
  { dataset, requests, aliases }: FileDescription,
): void {
  const statement = database.prepare('INSERT OR IGNORE INTO request_files VALUES (?, ?, ?)')
  const listed = dataset === 'requests' ? requests : []
  for (const one of listed) statement.run(one.trace_id, one.request_id, fileId)
  for (const one of aliases ?? []) statement.run(one.stored_trace_id, one.request_id, fileId)
}

export function insertSeries(
  database: DatabaseSync,
  fileId: number | bigint,
  series: readonly SeriesRange[],
): void {
  const statement = database.prepare(seriesInsert)
  for (const one of series) {
    statement.run(
      ...[one.trace_id, one.request_id, one.hook, one.layer],
      ...[one.tp_rank, one.pp_rank, one.dp_rank, one.ep_rank],
      ...[fileId, one.row_start, one.row_end],
      ...[one.token_start, one.token_end, one.dtype, one.bytes, one.producer],
    )
  }
}

export function insertRequests(database: DatabaseSync, requests: readonly RequestEntry[]): void {
  const open = database.prepare(`${requestInsert} ${keepEarliest}`)
  const ended = database.prepare(`${requestInsert} ${takeSummary}`)
  for (const request of requests) {
    const statement = request.summary === null ? open : ended
    statement.run(...requestValues(request))
  }
}

export function insertAliases(database: DatabaseSync, aliases: readonly AliasEntry[]): void {
  const statement = database.prepare(aliasInsert)
  for (const one of aliases) {
    statement.run(
      ...[one.trace_id, one.stored_trace_id, one.request_id, one.producer, one.span_id],
      ...[one.parent_span_id ?? null, one.trace_state ?? null],
      ...[one.parent_started_at ?? null, one.parent_ended_at ?? null],
    )
  }
}

export function insertVocabularies(
  database: DatabaseSync,
  fileId: number | bigint,
  vocabularies: readonly VocabularyEntry[],
): void {
  const statement = database.prepare(
    `INSERT OR REPLACE INTO vocabularies (fingerprint, part, parts, model, file_id, row)
     VALUES (?, ?, ?, ?, ?, ?)`,
  )
  for (const { fingerprint, part, parts, model, row } of vocabularies) {
    statement.run(fingerprint, part, parts, model, fileId, row)
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
