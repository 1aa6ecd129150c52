/**
 * How rows that wait for a flush lie in memory: numbers by column, and what rows share once per kind.
 * Not here: how they come in (pending-rows.ts) and go out (row-table.ts).
 */

import type { TensorRow } from '../../collector/records.ts'
import type { Column } from '../parquet/schema.ts'

/** What all rows of a kind have. */
export interface RowKind {
  /** The first row, without its payload: everything but its numbers holds for the others. */
  readonly row: TensorRow
  /** Folder of its files in the store. */
  readonly folder: string
  readonly hourStart: number
  rows: number
}

/** One number of every row; `defined` where a number may be missing. */
export interface PackedColumn {
  readonly column: Column<TensorRow>
  values: Float64Array
  defined: Uint8Array | null
}

/** All rows in the order in which they came. */
export interface PackedRows {
  count: number
  readonly columns: readonly PackedColumn[]
  readonly kinds: RowKind[]
  /** Index of the row's kind. */
  kindOf: Uint32Array
  /** The memory that payloads lie in, and where. */
  readonly sources: ArrayBufferLike[]
  sourceOf: Uint32Array
  offset: Float64Array
  bytes: Float64Array
}
