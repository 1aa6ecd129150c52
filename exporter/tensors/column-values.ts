/**
 * The values of one column of a row group, in the form in which they are encoded: codes into a
 * short dictionary where values repeat, else the values themselves.
 *
 * Rows are sorted, so most columns hold one value or a few long runs of values; looking a value up
 * happens where it changes and not for every row. Not here: pages and bytes (column-chunks.ts).
 */

import type { Column, ColumnValue } from './schema.ts'

/** A code is one byte, which every reader gets right. */
const ENTRIES_MAX = 256
/** A dictionary of numbers pays when a value stays for this many rows on average. */
const RUN_ROWS_MIN = 4

/** Neither lists nor nulls. */
export type Entry = string | number

interface Common {
  /** Of rows, or of list elements. */
  readonly count: number
  /** 1 where there is a value; left out where there always is one. */
  readonly defined?: Uint8Array
  readonly nulls: number
}

export interface DictionaryValues extends Common {
  readonly kind: 'dictionary'
  /** Meaningless where there is no value. */
  readonly codes: Uint8Array
  readonly entries: readonly Entry[]
}

export interface NumberValues extends Common {
  readonly kind: 'numbers'
  readonly values: Float64Array
}

export interface TextValues extends Common {
  readonly kind: 'texts'
  readonly values: readonly string[]
}

export type ColumnValues = DictionaryValues | NumberValues | TextValues

/** @param numberDictionaries false writes every number itself, for readers that want that. */
export function gatherColumn<Row>(
  column: Column<Row>,
  rows: readonly Row[],
  numberDictionaries: boolean,
): ColumnValues {
  if (column.type === 'string') return gatherTexts(column, rows)
  const numbers = gatherNumbers(column, rows)
  return numberDictionaries && column.type !== 'double' ? withDictionary(numbers) : numbers
}

/** The elements of all lists behind one another, and how many each row has. */
export function gatherLists<Row>(
  column: Column<Row>,
  rows: readonly Row[],
  numberDictionaries: boolean,
): { readonly elements: ColumnValues; readonly lengths: Uint32Array } {
  const lengths = new Uint32Array(rows.length)
  const flat: number[] = []
  for (let index = 0; index < rows.length; index += 1) {
    const list = column.value(rows[index] as Row)
    if (typeof list !== 'object' || list === null) throw unfit(column.name, 'a list', list)
    lengths[index] = list.length
    for (let axis = 0; axis < list.length; axis += 1) flat.push(integer(column.name, list[axis]))
  }
  const numbers: NumberValues = {
    kind: 'numbers',
    values: Float64Array.from(flat),
    count: flat.length,
    nulls: 0,
  }
  return { elements: numberDictionaries ? withDictionary(numbers, 1) : numbers, lengths }
}

function gatherNumbers<Row>(column: Column<Row>, rows: readonly Row[]): NumberValues {
  const { name, nullable, value } = column
  const whole = column.type !== 'double'
  const count = rows.length
  const values = new Float64Array(count)
  const defined = nullable ? new Uint8Array(count) : undefined
  let nulls = 0
  for (let index = 0; index < count; index += 1) {
    const one = value(rows[index] as Row)
    if (one === null && defined !== undefined) {
      nulls += 1
      continue
    }
    if (typeof one !== 'number' || (whole && !Number.isInteger(one))) {
      throw unfit(name, whole ? 'an integer' : 'a number', one)
    }
    values[index] = one
    if (defined !== undefined) defined[index] = 1
  }
  const common = { kind: 'numbers', values, count, nulls } as const
  return nulls === 0 || defined === undefined ? common : { ...common, defined }
}

/** The same values as codes where that is shorter. */
function withDictionary(numbers: NumberValues, runRowsMin = RUN_ROWS_MIN): ColumnValues {
  const { values, count, defined } = numbers
  const codes = new Uint8Array(count)
  const codeOf = new Map<number, number>()
  const changesMax = count / runRowsMin
  let changes = 0
  let previous = Number.NaN
  let code = 0
  for (let index = 0; index < count; index += 1) {
    if (defined !== undefined && defined[index] === 0) continue
    const value = values[index] as number
    if (value !== previous) {
      previous = value
      changes += 1
      code = codeOf.get(value) ?? codeOf.size
      codeOf.set(value, code)
      if (codeOf.size > ENTRIES_MAX || changes > Math.max(1, changesMax)) return numbers
    }
    codes[index] = code
  }
  return { ...numbers, kind: 'dictionary', codes, entries: [...codeOf.keys()] }
}

function gatherTexts<Row>(column: Column<Row>, rows: readonly Row[]): ColumnValues {
  const { name, nullable, value } = column
  const count = rows.length
  const codes = new Uint8Array(count)
  const defined = nullable ? new Uint8Array(count) : undefined
  const codeOf = new Map<string, number>()
  let nulls = 0
  let previous: string | null = null
  let code = 0
  for (let index = 0; index < count; index += 1) {
    const one = value(rows[index] as Row)
    if (one === null && defined !== undefined) {
      nulls += 1
      continue
    }
    if (typeof one !== 'string') throw unfit(name, 'text', one)
    if (defined !== undefined) defined[index] = 1
    if (one !== previous) {
      previous = one
      code = codeOf.get(one) ?? codeOf.size
      codeOf.set(one, code)
      if (codeOf.size > ENTRIES_MAX) return plainTexts(column, rows)
    }
    codes[index] = code
  }
  const common = { kind: 'dictionary', codes, entries: [...codeOf.keys()], count, nulls } as const
  return nulls === 0 || defined === undefined ? common : { ...common, defined }
}

function plainTexts<Row>({ name, value, nullable }: Column<Row>, rows: readonly Row[]): TextValues {
  const defined = new Uint8Array(rows.length)
  const values = rows.map((row, index) => {
    const one = value(row)
    if (one === null && nullable) return ''
    if (typeof one !== 'string') throw unfit(name, 'text', one)
    defined[index] = 1
    return one
  })
  const nulls = defined.reduce((sum, one) => sum - one, rows.length)
  const common = { kind: 'texts', values, count: rows.length, nulls } as const
  return nulls === 0 ? common : { ...common, defined }
}

function integer(name: string, value: unknown): number {
  if (Number.isInteger(value)) return value as number
  throw unfit(name, 'integers', value)
}

function unfit(name: string, expected: string, value: ColumnValue | unknown): TypeError {
  return new TypeError(`column ${name} needs ${expected}; got ${typeof value} ${String(value)}`)
}
