/**
 * The values of one column of a row group, in the form in which they are encoded: codes into a
 * short dictionary where values repeat, else the values themselves.
 *
 * Rows are sorted, so most columns hold one value or a few long runs of values; looking a value up
 * happens where it changes and not for every row. Not here: pages and bytes (column-chunks.ts).
 */

import type { Column } from './schema.ts'

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

/** Takes the rows of a row group in order, some at a time, and then tells their values. */
export interface ColumnGather<Row> {
  add(rows: readonly Row[], start: number, end: number): void
  /** The value of one row for all of the rows [start, end). */
  repeat(row: Row, start: number, end: number): void
  finish(): GatheredColumn
}

export interface GatheredColumn {
  readonly elements: ColumnValues
  /** Elements of each row's list; null where rows are single values. */
  readonly lengths: Uint32Array | null
}

/**
 * @param count rows of the row group.
 * @param numberDictionaries false writes every number itself, for readers that want that.
 */
export function gatherColumn<Row>(
  column: Column<Row>,
  count: number,
  numberDictionaries: boolean,
): ColumnGather<Row> {
  switch (column.type) {
    case 'string':
      return gatherTexts(column, count)
    case 'int64_list':
      return gatherLists(column, count, numberDictionaries)
    case 'double':
      return gatherNumbers(column, count, false)
    default:
      return gatherNumbers(column, count, numberDictionaries)
  }
}

function gatherLists<Row>(
  { name, value }: Column<Row>,
  count: number,
  dictionary: boolean,
): ColumnGather<Row> {
  const lengths = new Uint32Array(count)
  const flat: number[] = []

  function take(index: number, row: Row): void {
    const list = value(row)
    if (typeof list !== 'object' || list === null) throw unfit(name, 'a list', list)
    lengths[index] = list.length
    for (let axis = 0; axis < list.length; axis += 1) {
      const size = list[axis]
      if (!Number.isInteger(size)) throw unfit(name, 'integers', size)
      flat.push(size as number)
    }
  }

  return {
    add(rows, start, end) {
      for (let index = start; index < end; index += 1) take(index, rows[index] as Row)
    },
    repeat(row, start, end) {
      for (let index = start; index < end; index += 1) take(index, row)
    },
    finish() {
      const values = Float64Array.from(flat)
      const numbers = { kind: 'numbers', values, count: flat.length, nulls: 0 } as const
      return { elements: dictionary ? withDictionary(numbers, 1) : numbers, lengths }
    },
  }
}

function gatherNumbers<Row>(
  { name, nullable, value, type }: Column<Row>,
  count: number,
  dictionary: boolean,
): ColumnGather<Row> {
  const whole = type !== 'double'
  const values = new Float64Array(count)
  const defined = nullable ? new Uint8Array(count) : undefined
  let nulls = 0
  return {
    add(rows, start, end) {
      for (let index = start; index < end; index += 1) {
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
    },
    repeat(row, start, end) {
      const one = value(row)
      if (one === null && defined !== undefined) {
        nulls += end - start
        return
      }
      if (typeof one !== 'number' || (whole && !Number.isInteger(one))) {
        throw unfit(name, whole ? 'an integer' : 'a number', one)
      }
      values.fill(one, start, end)
      defined?.fill(1, start, end)
    },
    finish: () => finishNumbers(values, defined, nulls, dictionary),
  }
}

function finishNumbers(
  values: Float64Array,
  defined: Uint8Array | undefined,
  nulls: number,
  dictionary: boolean,
): GatheredColumn {
  const common = { kind: 'numbers', values, count: values.length, nulls } as const
  const numbers = nulls === 0 || defined === undefined ? common : { ...common, defined }
  const elements = dictionary ? withDictionary(numbers, RUN_ROWS_MIN) : numbers
  return { elements, lengths: null }
}

/**
 * Numbers that lie in memory already.
 *
 * @param defined 1 where there is a value; null where there always is one.
 */
export function packedNumbers<Row>(
  { name, type }: Column<Row>,
  values: Float64Array,
  defined: Uint8Array | null,
): GatheredColumn {
  const whole = type !== 'double'
  let nulls = 0
  for (let index = 0; index < values.length; index += 1) {
    if (defined !== null && defined[index] === 0) nulls += 1
    else if (whole && !Number.isInteger(values[index])) {
      throw unfit(name, 'an integer', values[index])
    }
  }
  return finishNumbers(values, defined ?? undefined, nulls, whole)
}

/** The same values as codes where that is shorter. */
function withDictionary(numbers: NumberValues, runRowsMin: number): ColumnValues {
  const { values, count, defined } = numbers
  const codes = new Uint8Array(count)
  const codeOf = new Map<number, number>()
  const changesMax = Math.max(1, count / runRowsMin)
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
      if (codeOf.size > ENTRIES_MAX || changes > changesMax) return numbers
    }
    codes[index] = code
  }
  return { ...numbers, kind: 'dictionary', codes, entries: [...codeOf.keys()] }
}

function gatherTexts<Row>(
  { name, nullable, value }: Column<Row>,
  count: number,
): ColumnGather<Row> {
  const codes = new Uint8Array(count)
  const defined = nullable ? new Uint8Array(count) : undefined
  const codeOf = new Map<string, number>()
  // The values themselves, once there are too many for a dictionary.
  let plain: string[] | null = null
  let nulls = 0
  let previous: string | null = null
  let code = 0

  function take(index: number, text: string): void {
    if (plain !== null) {
      plain[index] = text
      return
    }
    if (text !== previous) {
      previous = text
      code = codeOf.get(text) ?? codeOf.size
      codeOf.set(text, code)
    }
    if (codeOf.size <= ENTRIES_MAX) codes[index] = code
    else {
      const entries = [...codeOf.keys()]
      plain = Array.from({ length: count }, (_, row) => entries[codes[row] as number] ?? '')
      plain[index] = text
    }
  }

  return {
    add(rows, start, end) {
      for (let index = start; index < end; index += 1) {
        const one = value(rows[index] as Row)
        if (one === null && defined !== undefined) {
          nulls += 1
          continue
        }
        if (typeof one !== 'string') throw unfit(name, 'text', one)
        if (defined !== undefined) defined[index] = 1
        take(index, one)
      }
    },
    repeat(row, start, end) {
      const one = value(row)
      if (one === null && defined !== undefined) {
        nulls += end - start
        return
      }
      if (typeof one !== 'string') throw unfit(name, 'text', one)
      defined?.fill(1, start, end)
      take(start, one)
      if (plain !== null) plain.fill(one, start, end)
      else codes.fill(code, start, end)
    },
    finish() {
      const some = nulls === 0 || defined === undefined ? {} : { defined }
      const common = { count, nulls, ...some }
      const elements: ColumnValues =
        plain === null
          ? { kind: 'dictionary', codes, entries: [...codeOf.keys()], ...common }
          : { kind: 'texts', values: plain, ...common }
      return { elements, lengths: null }
    },
  }
}

function unfit(name: string, expected: string, value: unknown): TypeError {
  return new TypeError(`column ${name} needs ${expected}; got ${typeof value} ${String(value)}`)
}
