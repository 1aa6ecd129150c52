/**
 * What the catalogue has to do when requests are deleted: tell what they have, and forget them. Not
 * here: leaving none of their bytes in the database's file (compact.ts).
 *
 * Its own connection, so that the others go on. `forget` may be repeated; it leaves the files of the
 * store alone. Calls are synchronous and throw RING2_E_STORE.
 */

import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import { catalogError, openDatabase } from './database.ts'

/** Requests to be deleted, by the trace id of their rows. */
export interface DeletionTarget {
  readonly traceId: string
  /** Null for every request of the trace. */
  readonly requestId: string | null
}

/** A request as its files are found. */
export interface HeldRequestPlace {
  readonly traceId: string
  readonly requestId: string
  readonly producer: string
  readonly model: string
  readonly startedAtMicros: number
}

export interface CatalogRemoval {
  /** What a trace id, the caller's too, and a request id stand for; empty when nothing is known. */
  targets(traceId: string, requestId: string | null): DeletionTarget[]
  requests(targets: readonly DeletionTarget[]): HeldRequestPlace[]
  /** Keys of the tensor files that have rows of them. */
  tensorFiles(targets: readonly DeletionTarget[]): string[]
  /** Keys of the files that list them, or their callers, as far as the catalogue describes these. */
  listingFiles(targets: readonly DeletionTarget[]): string[]
  /** Whether the catalogue knows which requests a file lists: it need not be read to find them. */
  isListing(key: string): boolean
  /** Ids of the traces that they are known by: of their rows, and of their callers. */
  traces(targets: readonly DeletionTarget[]): string[]
  /** Whether the catalogue describes a file whole, and not from another exporter's index. */
  isOwn(key: string): boolean
  /** Keys of the objects by which they are found in a bucket. */
  indexes(targets: readonly DeletionTarget[]): string[]
  /** Removes every row of them. */
  forget(targets: readonly DeletionTarget[]): void
  close(): void
}

/** By the trace id of the rows, and by that under another name. */
const tables = ['series', 'requests', 'spans_sent', 'index_due'] as const
const storedTables = ['aliases', 'trace_indexes'] as const

/** @param durable whether what is forgotten stays so after a power cut. */
export function openCatalogRemoval(path: string, durable = false): CatalogRemoval {
  const database = openDatabase(path, durable)

  function guard<T>(doing: string, act: () => T): T {
    try {
      return act()
    } catch (error) {
      throw catalogError(doing, path, error)
    }
  }

  return {
    targets: (traceId, requestId) => guard('read', () => targetsOf(database, traceId, requestId)),
    requests: (targets) => guard('read', () => placesOf(database, targets)),
    tensorFiles: (targets) => guard('read', () => filesOf(database, targets, 'series')),
    listingFiles: (targets) => guard('read', () => filesOf(database, targets, 'request_files')),
    isListing: (key) => guard('read', () => isListing(database, key)),
    traces: (targets) => guard('read', () => tracesOf(database, targets)),
    isOwn: (key) => guard('read', () => isOwn(database, key)),
    indexes: (targets) => guard('read', () => indexesOf(database, targets)),
    forget: (targets) => guard('write', () => forget(database, targets)),
    close: () => database.close(),
  }
}

/** A condition on a table's trace and request columns. */
function condition(
  { traceId, requestId }: DeletionTarget,
  trace = 'trace_id',
): { readonly where: string; readonly values: SQLInputValue[] } {
  if (requestId === null) return { where: `${trace} = ?`, values: [traceId] }
  return { where: `${trace} = ? AND request_id = ?`, values: [traceId, requestId] }
}

function targetsOf(
  database: DatabaseSync,
  traceId: string,
  requestId: string | null,
): DeletionTarget[] {
  const own = { traceId, requestId }
  const { where, values } = condition(own)
  const held = ['requests', 'series'].some((table) =>
    database.prepare(`SELECT 1 FROM ${table} WHERE ${where} LIMIT 1`).get(...values),
  )
  const moved = database
    .prepare(`SELECT DISTINCT stored_trace_id, request_id FROM aliases WHERE ${where}`)
    .all(...values)
    .map((row) => ({
      traceId: String(row.stored_trace_id),
      requestId: String(row.request_id),
    }))
  return held ? [own, ...moved] : moved
}

function placesOf(database: DatabaseSync, targets: readonly DeletionTarget[]): HeldRequestPlace[] {
  return targets.flatMap((target) => {
    const { where, values } = condition(target)
    return database
      .prepare(
        `SELECT trace_id, request_id, producer, model, started_at FROM requests WHERE ${where}`,
      )
      .all(...values)
      .map((row) => ({
        traceId: String(row.trace_id),
        requestId: String(row.request_id),
        producer: String(row.producer),
        model: String(row.model),
        startedAtMicros: Number(row.started_at),
      }))
  })
}

function filesOf(
  database: DatabaseSync,
  targets: readonly DeletionTarget[],
  table: 'series' | 'request_files',
): string[] {
  const keys = targets.flatMap((target) => {
    const { where, values } = condition(target)
    return database
      .prepare(
        `SELECT DISTINCT f.key FROM ${table} s JOIN files f ON f.id = s.file_id WHERE ${where}`,
      )
      .all(...values)
      .map((row) => String(row.key))
  })
  return [...new Set(keys)].sort()
}

function tracesOf(database: DatabaseSync, targets: readonly DeletionTarget[]): string[] {
  const callers = targets.flatMap((target) => {
    const { where, values } = condition(target, 'stored_trace_id')
    const rows = database
      .prepare(`SELECT DISTINCT trace_id FROM aliases WHERE ${where}`)
      .all(...values)
    return rows.map((row) => String(row.trace_id))
  })
  return [...new Set([...targets.map((target) => target.traceId), ...callers])]
}

function isOwn(database: DatabaseSync, key: string): boolean {
  const sql = 'SELECT 1 FROM files WHERE key = ? AND imported = 0'
  return database.prepare(sql).get(key) !== undefined
}

/** A file of which it knows no request at all was not described by this version. */
function isListing(database: DatabaseSync, key: string): boolean {
  const sql = `SELECT 1 FROM request_files WHERE file_id = (SELECT id FROM files WHERE key = ?) LIMIT 1`
  return database.prepare(sql).get(key) !== undefined
}

function indexesOf(database: DatabaseSync, targets: readonly DeletionTarget[]): string[] {
  return targets.flatMap((target) => {
    const { where, values } = condition(target, 'stored_trace_id')
    const rows = database.prepare(`SELECT key FROM trace_indexes WHERE ${where}`).all(...values)
    return rows.map((row) => String(row.key))
  })
}

function forget(database: DatabaseSync, targets: readonly DeletionTarget[]): void {
  database.exec('PRAGMA secure_delete = ON; BEGIN IMMEDIATE')
  try {
    for (const target of targets) {
      const { where, values } = condition(target)
      for (const table of tables) {
        database.prepare(`DELETE FROM ${table} WHERE ${where}`).run(...values)
      }
      const stored = condition(target, 'stored_trace_id')
      for (const table of storedTables) {
        database.prepare(`DELETE FROM ${table} WHERE ${stored.where}`).run(...stored.values)
      }
    }
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}
