/**
 * Rows of the tensor dataset as they come back from Parquet, checked field by field: a file of
 * another writer, or a damaged one, is an error and never a wrong number.
 */

import { placeColumns, type TensorPlace } from '../catalog/description.ts'
import { Ring2Error } from '../errors.ts'
import type { ParquetRow } from '../parquet/parquet-source.ts'

/** Everything of a row but its payload. */
export interface TensorRecord extends TensorPlace {
  readonly phase: string
  readonly kv_offset: number
  readonly shape: readonly number[]
  readonly encoding: string
  readonly data_crc32c: number
  readonly l2_mean: number | null
  readonly l2_max: number | null
  readonly abs_max: number | null
  readonly mean: number | null
  readonly std: number | null
  readonly entropy_mean: number | null
  readonly sink_mass: number | null
  /** These three are null in what earlier versions wrote. */
  readonly top1_probability_mean: number | null
  readonly margin_mean: number | null
  readonly surprisal_mean: number | null
  readonly nonfinite: number
}

/** What stitching and checking a row's payload need to know of it. */
export const stitchColumns = [
  'trace_id',
  'request_id',
  'producer',
  'hook',
  'layer',
  'step',
  'token_start',
  'token_end',
  'tp_rank',
  'pp_rank',
  'dp_rank',
  'ep_rank',
  'dtype',
  'shape',
  'encoding',
  'data_bytes',
  'data_crc32c',
] as const satisfies readonly (keyof TensorRecord)[]

export type StitchRecord = Pick<TensorRecord, (typeof stitchColumns)[number]>

export const recordColumns = [
  ...placeColumns,
  'phase',
  'kv_offset',
  'shape',
  'encoding',
  'data_crc32c',
  'l2_mean',
  'l2_max',
  'abs_max',
  'mean',
  'std',
  'entropy_mean',
  'sink_mass',
  'top1_probability_mean',
  'margin_mean',
  'surprisal_mean',
  'nonfinite',
] as const satisfies readonly (keyof TensorRecord)[]

const laterColumns = new Set<string>([
  'top1_probability_mean',
  'margin_mean',
  'surprisal_mean',
] satisfies (keyof TensorRecord)[])

/** The columns to ask a file for: one of an earlier version lacks some. */
export function recordColumnsOf(present: ReadonlySet<string>): string[] {
  return recordColumns.filter((name) => present.has(name) || !laterColumns.has(name))
}

export function placeFrom(row: ParquetRow): TensorPlace {
  return {
    trace_id: text(row, 'trace_id'),
    span_id: row.span_id === null ? null : text(row, 'span_id'),
    request_id: text(row, 'request_id'),
    model: text(row, 'model'),
    model_revision: text(row, 'model_revision'),
    engine: text(row, 'engine'),
    hook: text(row, 'hook'),
    layer: integer(row, 'layer'),
    step: integer(row, 'step'),
    token_start: integer(row, 'token_start'),
    token_end: integer(row, 'token_end'),
    tp_rank: integer(row, 'tp_rank'),
    pp_rank: integer(row, 'pp_rank'),
    dp_rank: integer(row, 'dp_rank'),
    ep_rank: integer(row, 'ep_rank'),
    captured_at: integer(row, 'captured_at'),
    dtype: text(row, 'dtype'),
    data_bytes: integer(row, 'data_bytes'),
    producer: text(row, 'producer'),
    host: text(row, 'host'),
  }
}

export function stitchRecordFrom(row: ParquetRow): StitchRecord {
  return {
    trace_id: text(row, 'trace_id'),
    request_id: text(row, 'request_id'),
    producer: text(row, 'producer'),
    hook: text(row, 'hook'),
    layer: integer(row, 'layer'),
    step: integer(row, 'step'),
    token_start: integer(row, 'token_start'),
    token_end: integer(row, 'token_end'),
    tp_rank: integer(row, 'tp_rank'),
    pp_rank: integer(row, 'pp_rank'),
    dp_rank: integer(row, 'dp_rank'),
    ep_rank: integer(row, 'ep_rank'),
    dtype: text(row, 'dtype'),
    shape: integers(row, 'shape'),
    encoding: text(row, 'encoding'),
    data_bytes: integer(row, 'data_bytes'),
    data_crc32c: integer(row, 'data_crc32c'),
  }
}

export function recordFrom(row: ParquetRow): TensorRecord {
  return {
    ...placeFrom(row),
    phase: text(row, 'phase'),
    kv_offset: integer(row, 'kv_offset'),
    shape: integers(row, 'shape'),
    encoding: text(row, 'encoding'),
    data_crc32c: integer(row, 'data_crc32c'),
    l2_mean: optional(row, 'l2_mean'),
    l2_max: optional(row, 'l2_max'),
    abs_max: optional(row, 'abs_max'),
    mean: optional(row, 'mean'),
    std: optional(row, 'std'),
    entropy_mean: optional(row, 'entropy_mean'),
    sink_mass: optional(row, 'sink_mass'),
    top1_probability_mean: optional(row, 'top1_probability_mean'),
    margin_mean: optional(row, 'margin_mean'),
    surprisal_mean: optional(row, 'surprisal_mean'),
    nonfinite: integer(row, 'nonfinite'),
  }
}

export function payloadFrom(row: ParquetRow): Uint8Array {
  const value = row.data
  if (value instanceof Uint8Array) return value
  throw unexpected('data', 'bytes', value)
}

export function text(row: ParquetRow, name: string): string {
  const value = row[name]
  if (typeof value === 'string') return value
  throw unexpected(name, 'text', value)
}

/** Null too where the file, of an earlier version, has no such column. */
export function optionalText(row: ParquetRow, name: string): string | null {
  return row[name] === null || row[name] === undefined ? null : text(row, name)
}

/** Null too where the file, of an earlier version, has no such column. */
export function optionalInteger(row: ParquetRow, name: string): number | null {
  return row[name] === null || row[name] === undefined ? null : integer(row, name)
}

export function integer(row: ParquetRow, name: string): number {
  return safeInteger(name, row[name])
}

function integers(row: ParquetRow, name: string): number[] {
  const value = row[name]
  if (Array.isArray(value)) return value.map((one) => safeInteger(name, one))
  throw unexpected(name, 'a list of integers', value)
}

function safeInteger(name: string, value: unknown): number {
  const number = typeof value === 'bigint' ? Number(value) : value
  if (typeof number === 'number' && Number.isSafeInteger(number)) return number
  throw unexpected(name, 'an integer below 2^53', value)
}

function optional(row: ParquetRow, name: string): number | null {
  const value = row[name]
  if (value === null || value === undefined) return null
  if (typeof value === 'number') return value
  throw unexpected(name, 'a number or null', value)
}

function unexpected(name: string, expected: string, value: unknown): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `${expected} in the column ${name}`,
    actual: value === undefined ? 'no such column' : `${typeof value} ${String(value)}`,
    action: 'Read the file with an exporter of the version that wrote it.',
  })
}
