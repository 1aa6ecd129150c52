/** Where the file writer takes rows from: objects, or packed columns (tensors/row-table.ts). */

import { parquetLimits } from '../limits.ts'
import { type GatheredColumn, gatherColumn } from './column-values.ts'
import type { Column, PayloadColumn } from './schema.ts'

/** Rows [start, end). */
export interface RowRange {
  readonly start: number
  readonly end: number
}

export interface RowSource {
  readonly count: number
  /** Bytes of a row's payload; 0 where there is no payload column. */
  payloadBytes(row: number): number
  payload(row: number): Uint8Array
  /** The values of rows [start, end) in each column, in the order of the columns. */
  gather(start: number, end: number): GatheredColumn[]
}

const noBytes = new Uint8Array(0)

export interface RowObjects<Row> {
  readonly columns: readonly Column<Row>[]
  readonly payload: PayloadColumn<Row> | null
  readonly rows: readonly Row[]
  /** False for readers that take entries of a dictionary for texts; files are then larger. */
  readonly numberDictionaries?: boolean
}

export function objectSource<Row>(objects: RowObjects<Row>): RowSource {
  const { columns, payload, rows, numberDictionaries = true } = objects
  const payloadOf = (row: number): Uint8Array => payload?.value(rows[row] as Row) ?? noBytes
  return {
    count: rows.length,
    payloadBytes: (row) => payloadOf(row).byteLength,
    payload: payloadOf,
    gather(start, end) {
      const group = rows.slice(start, end)
      const gathers = columns.map((column) =>
        gatherColumn(column, group.length, numberDictionaries),
      )
      // Some rows at a time for all columns, while they are in the cache.
      for (let first = 0; first < group.length; first += parquetLimits.gatherRows) {
        const last = Math.min(group.length, first + parquetLimits.gatherRows)
        for (const gathered of gathers) gathered.add(group, first, last)
      }
      return gathers.map((gathered) => gathered.finish())
    },
  }
}
