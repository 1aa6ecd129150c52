/**
 * Tensor rows that wait for a flush: numbers packed by column, and what rows share kept once.
 *
 * Rows of one kind agree in everything but numbers: request, model, hook, layer, ranks, shape and so
 * on, and the folder they belong to. Neighbours of a series mostly are of one kind, so a row costs a
 * few numbers and no object, and sorting is for kinds: their rows come in order. A kind may come
 * twice; nothing relies on there being one.
 *
 * Invariants: what `tables` gives is in file order (description.ts) and holds until `clear`; payloads
 * are referred to, not copied. Not here: files and when they are written (prepare.ts, tensor-sink.ts).
 */

import type { RequestInfo, TensorRow } from '../../collector/records.ts'
import { compareSeries } from '../catalog/description.ts'
import { pendingLimits } from '../limits.ts'
import { type Column, tensorColumns } from '../parquet/schema.ts'
import { partition } from '../store/keys.ts'
import type { PackedColumn, PackedRows, RowKind } from './packed-rows.ts'
import { createRowTable, type RowTable } from './row-table.ts'

const MICROS_PER_HOUR = 3_600_000_000

/** Numbers that are the same in all rows of a kind. */
const kindNumbers = new Set(['layer', 'tp_rank', 'pp_rank', 'dp_rank', 'ep_rank'])

function isPacked({ name, type }: Column<TensorRow>): boolean {
  return type !== 'string' && type !== 'int64_list' && !kindNumbers.has(name)
}

/** Columns of numbers that each row has its own of. */
const packedColumns = tensorColumns.filter(isPacked)

export interface PendingRows {
  rows(): number
  /** Bytes of the payloads as they are stored. */
  bytes(): number
  add(row: TensorRow): void
  /** The rows of each folder, in file order. */
  tables(): Map<string, RowTable>
  clear(): void
}

export function createPendingRows(): PendingRows {
  let packed = emptyRows(pendingLimits.rowsAtFirst)
  let lastKinds = new Map<RequestInfo, Map<string, (number | undefined)[]>>()
  let totalBytes = 0
  // Neighbours mostly share request and hook.
  let lastRequest: RequestInfo | null = null
  let lastHook = ''
  let byLayer: (number | undefined)[] = []

  function kindIndex(row: TensorRow): number {
    if (row.request !== lastRequest || row.hook !== lastHook) {
      const byHook = lastKinds.get(row.request) ?? new Map<string, (number | undefined)[]>()
      lastKinds.set(row.request, byHook)
      byLayer = byHook.get(row.hook) ?? []
      byHook.set(row.hook, byLayer)
      lastRequest = row.request
      lastHook = row.hook
    }
    const known = byLayer[row.layer + 1]
    if (known !== undefined && isOfKind(packed.kinds[known] as RowKind, row)) return known
    const index = packed.kinds.push(createKind(row)) - 1
    byLayer[row.layer + 1] = index
    return index
  }

  function add(row: TensorRow): void {
    const at = packed.count
    if (at === packed.kindOf.length) grow(packed)
    const kind = kindIndex(row)
    const { data } = row
    packed.kindOf[at] = kind
    ;(packed.kinds[kind] as RowKind).rows += 1
    packed.sourceOf[at] = sourceIndex(packed.sources, data.buffer)
    packed.offset[at] = data.byteOffset
    packed.bytes[at] = data.byteLength
    for (const { column, values, defined } of packed.columns) {
      const value = column.value(row)
      if (value === null && defined !== null) continue
      // What is no number becomes NaN, and an error when the file is written.
      values[at] = value as number
      if (defined !== null) defined[at] = 1
    }
    packed.count += 1
    totalBytes += data.byteLength
  }

  return {
    rows: () => packed.count,
    bytes: () => totalBytes,
    add,
    tables: () => tablesOf(packed),
    clear() {
      packed = emptied(packed)
      lastKinds = new Map()
      lastRequest = null
      totalBytes = 0
    },
  }
}

function emptyRows(rowsMax: number): PackedRows {
  return {
    count: 0,
    columns: packedColumns.map((column) => ({
      column,
      values: new Float64Array(rowsMax),
      defined: column.nullable ? new Uint8Array(rowsMax) : null,
    })),
    kinds: [],
    kindOf: new Uint32Array(rowsMax),
    sources: [],
    sourceOf: new Uint32Array(rowsMax),
    offset: new Float64Array(rowsMax),
    bytes: new Float64Array(rowsMax),
  }
}

/** The same memory for the next rows, unless it has become large. */
function emptied(packed: PackedRows): PackedRows {
  if (packed.kindOf.length > pendingLimits.rowsKept) return emptyRows(pendingLimits.rowsAtFirst)
  for (const { defined } of packed.columns) defined?.fill(0, 0, packed.count)
  return { ...packed, count: 0, kinds: [], sources: [] }
}

function grow(packed: PackedRows): void {
  const wider = emptyRows(packed.kindOf.length * 2)
  for (const [index, column] of packed.columns.entries()) {
    const target = wider.columns[index] as PackedColumn
    target.values.set(column.values)
    column.values = target.values
    if (column.defined !== null) target.defined?.set(column.defined)
    column.defined = target.defined
  }
  wider.kindOf.set(packed.kindOf)
  wider.sourceOf.set(packed.sourceOf)
  wider.offset.set(packed.offset)
  wider.bytes.set(packed.bytes)
  packed.kindOf = wider.kindOf
  packed.sourceOf = wider.sourceOf
  packed.offset = wider.offset
  packed.bytes = wider.bytes
}

function sourceIndex(sources: ArrayBufferLike[], buffer: ArrayBufferLike): number {
  // Almost all payloads lie in the ring, so that the first or the last source fits.
  if (sources[0] === buffer) return 0
  const last = sources.length - 1
  return sources[last] === buffer ? last : sources.push(buffer) - 1
}

const noBytes = new Uint8Array(0)

function createKind(row: TensorRow): RowKind {
  return {
    row: { ...row, data: noBytes },
    folder: partition('tensors', row.model.name, row.capturedAtMicros),
    hourStart: Math.floor(row.capturedAtMicros / MICROS_PER_HOUR) * MICROS_PER_HOUR,
    rows: 0,
  }
}

/** Request and hook are known to agree, as does the layer. */
function isOfKind({ row: known, hourStart }: RowKind, row: TensorRow): boolean {
  const sinceHour = row.capturedAtMicros - hourStart
  return (
    known.model === row.model &&
    known.producer === row.producer &&
    known.phase === row.phase &&
    known.dtype === row.dtype &&
    known.encoding === row.encoding &&
    sinceHour >= 0 &&
    sinceHour < MICROS_PER_HOUR &&
    (known.ranks === row.ranks || sameRanks(known, row)) &&
    (known.shape === row.shape || sameShape(known.shape, row.shape))
  )
}

function sameRanks({ ranks: left }: TensorRow, { ranks: right }: TensorRow): boolean {
  return (
    left.tp === right.tp && left.pp === right.pp && left.dp === right.dp && left.ep === right.ep
  )
}

function sameShape(left: readonly number[], right: readonly number[]): boolean {
  if (left.length !== right.length) return false
  for (let axis = 0; axis < left.length; axis += 1) if (left[axis] !== right[axis]) return false
  return true
}

function tablesOf(packed: PackedRows): Map<string, RowTable> {
  const ordered = packed.kinds
    .map((kind, index) => ({ kind, index }))
    .sort((left, right) => compareSeries(left.kind.row, right.kind.row))
  const folders = Map.groupBy(ordered, ({ kind }) => kind.folder)
  const places = new Uint32Array(packed.kinds.length)
  const starts = new Map<string, number>()
  let at = 0
  for (const [folder, members] of folders) {
    starts.set(folder, at)
    for (const { kind, index } of members) {
      places[index] = at
      at += kind.rows
    }
  }
  // Rows go behind each other in the place of their kind, in the order in which they came.
  const order = new Uint32Array(packed.count)
  for (let row = 0; row < packed.count; row += 1) {
    const kind = packed.kindOf[row] as number
    const place = places[kind] as number
    order[place] = row
    places[kind] = place + 1
  }
  const tables = new Map<string, RowTable>()
  for (const [folder, members] of folders) {
    const start = starts.get(folder) ?? 0
    const rows = members.reduce((sum, { kind }) => sum + kind.rows, 0)
    const own = order.subarray(start, start + rows)
    sortWithinSeries(packed, own)
    tables.set(folder, createRowTable(packed, own))
  }
  return tables
}

/** Puts the rows of each series in the order of their steps, where they are not in it yet. */
function sortWithinSeries(packed: PackedRows, order: Uint32Array): void {
  const step = numbersOf(packed, 'step')
  const token = numbersOf(packed, 'token_start')
  const compare = (left: number, right: number): number =>
    (step[left] as number) - (step[right] as number) ||
    (token[left] as number) - (token[right] as number) ||
    left - right
  let start = 0
  while (start < order.length) {
    const first = packed.kinds[packed.kindOf[order[start] as number] as number] as RowKind
    let kindBefore = packed.kindOf[order[start] as number]
    let sorted = true
    let end = start + 1
    for (; end < order.length; end += 1) {
      const row = order[end] as number
      const kind = packed.kindOf[row] as number
      if (kind !== kindBefore) {
        kindBefore = kind
        if (compareSeries(first.row, (packed.kinds[kind] as RowKind).row) !== 0) break
      }
      sorted = sorted && compare(order[end - 1] as number, row) < 0
    }
    if (!sorted) order.subarray(start, end).sort(compare)
    start = end
  }
}

function numbersOf(packed: PackedRows, name: string): Float64Array {
  const found = packed.columns.find(({ column }) => column.name === name)
  if (found === undefined) throw new Error(`no packed column ${name}`)
  return found.values
}
