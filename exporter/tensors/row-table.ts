/**
 * Pending rows of one folder in file order, as the file writer takes them: columns of numbers are
 * gathered from packed memory, what rows of a kind share is put down once for a run of rows.
 */

import type { TensorRow } from '../../collector/records.ts'
import { createTensorDescriber, placeOf } from '../catalog/description.ts'
import { type GatheredColumn, gatherColumn, packedNumbers } from '../parquet/column-values.ts'
import type { RowSource } from '../parquet/row-source.ts'
import { type Column, tensorColumns } from '../parquet/schema.ts'
import type { PackedColumn, PackedRows, RowKind } from './packed-rows.ts'

export interface RowTable extends RowSource {
  /** Rows [start, end) as a table of their own. */
  slice(start: number, end: number): RowTable
  /** A describer that has been told all rows (description.ts). */
  describe(): ReturnType<typeof createTensorDescriber>
}

/** @param order indices of packed rows, in file order. */
export function createRowTable(packed: PackedRows, order: Uint32Array): RowTable {
  const packedOf = new Map(packed.columns.map((one) => [one.column.name, one]))

  function* runs(start: number, end: number): Generator<readonly [RowKind, number, number]> {
    let first = start
    while (first < end) {
      const kind = packed.kindOf[order[first] as number] as number
      let last = first + 1
      while (last < end && packed.kindOf[order[last] as number] === kind) last += 1
      yield [packed.kinds[kind] as RowKind, first, last]
      first = last
    }
  }

  function gatherNumbers({ column, values, defined }: PackedColumn, start: number, end: number) {
    const count = end - start
    const own = new Float64Array(count)
    const present = defined === null ? null : new Uint8Array(count)
    for (let index = 0; index < count; index += 1) {
      const row = order[start + index] as number
      own[index] = values[row] as number
      if (defined !== null && present !== null) present[index] = defined[row] as number
    }
    return packedNumbers(column, own, present)
  }

  function gather(column: Column<TensorRow>, start: number, end: number): GatheredColumn {
    const numbers = packedOf.get(column.name)
    if (numbers !== undefined) return gatherNumbers(numbers, start, end)
    const gathered = gatherColumn(column, end - start, true)
    for (const [kind, first, last] of runs(start, end)) {
      gathered.repeat(kind.row, first - start, last - start)
    }
    return gathered.finish()
  }

  function payload(index: number): Uint8Array {
    const row = order[index] as number
    const source = packed.sources[packed.sourceOf[row] as number] as ArrayBufferLike
    return new Uint8Array(source, packed.offset[row], packed.bytes[row])
  }

  function describe(): ReturnType<typeof createTensorDescriber> {
    const describer = createTensorDescriber()
    const [starts, ends, times, bytes] = placeNumbers.map((name) => packedOf.get(name)?.values)
    if (!starts || !ends || !times || !bytes) throw new Error('a place has no numbers')
    for (const [{ row }, first, last] of runs(0, order.length)) {
      const run = { tokenStart: Infinity, tokenEnd: -Infinity, captured: Infinity, bytes: 0 }
      for (let index = first; index < last; index += 1) {
        const at = order[index] as number
        run.tokenStart = Math.min(run.tokenStart, starts[at] as number)
        run.tokenEnd = Math.max(run.tokenEnd, ends[at] as number)
        run.captured = Math.min(run.captured, times[at] as number)
        run.bytes += bytes[at] as number
      }
      const place = {
        ...placeOf(row),
        token_start: run.tokenStart,
        token_end: run.tokenEnd,
        captured_at: run.captured,
        data_bytes: run.bytes,
      }
      describer.add(place, last - first)
    }
    return describer
  }

  return {
    count: order.length,
    payloadBytes: (index) => packed.bytes[order[index] as number] as number,
    payload,
    gather: (start, end) => tensorColumns.map((column) => gather(column, start, end)),
    slice: (start, end) => createRowTable(packed, order.subarray(start, end)),
    describe,
  }
}

const placeNumbers = ['token_start', 'token_end', 'captured_at', 'data_bytes'] as const
