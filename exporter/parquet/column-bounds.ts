/**
 * Least and greatest values of pages and chunks, and Bloom filters: what lets a reader pass over
 * data that cannot hold what it looks for. Not here: where they are written (page-index.ts).
 */

import type { SchemaElement, Statistics } from 'hyparquet'
import { BloomBuilder } from 'hyparquet-writer/src/bloom.js'
import { unconvertMinMax } from 'hyparquet-writer/src/unconvert.js'
import { parquetLimits } from '../limits.ts'
import type {
  ColumnValues,
  DictionaryValues,
  Entry,
  NumberValues,
  TextValues,
} from './column-values.ts'
import type { PageBoundsList } from './page-index.ts'
import type { ColumnType } from './schema.ts'

export interface ValueBounds {
  /** Null where there is no value, or only values without an order (NaN). */
  readonly min: Entry | null
  readonly max: Entry | null
  readonly nulls: number
}

/** Of the values [start, end). */
export function boundsOf(values: ColumnValues, start: number, end: number): ValueBounds {
  const { defined } = values
  let nulls = 0
  if (defined !== undefined) {
    for (let index = start; index < end; index += 1) nulls += 1 - (defined[index] as number)
  }
  if (values.kind === 'numbers') return numberBounds(values, start, end, nulls)
  let min: Entry | null = null
  let max: Entry | null = null
  for (const value of presentEntries(values, start, end)) {
    if (min === null || compareEntries(value, min) < 0) min = value
    if (max === null || compareEntries(value, max) > 0) max = value
  }
  return { min, max, nulls }
}

function numberBounds(
  { values, defined }: NumberValues,
  start: number,
  end: number,
  nulls: number,
): ValueBounds {
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  let found = false
  for (let index = start; index < end; index += 1) {
    const value = values[index] as number
    // NaN has no place in the order.
    if ((defined !== undefined && defined[index] === 0) || Number.isNaN(value)) continue
    found = true
    if (value < min) min = value
    if (value > max) max = value
  }
  // The two zeros are equal, so the bounds must hold both.
  if (min === 0) min = -0
  if (max === 0) max = 0
  return found ? { min, max, nulls } : { min: null, max: null, nulls }
}

function presentEntries(
  values: DictionaryValues | TextValues,
  start: number,
  end: number,
): Iterable<Entry> {
  const { defined } = values
  const isDefined = (index: number): boolean => defined === undefined || defined[index] === 1
  if (values.kind === 'texts') {
    return values.values.slice(start, end).filter((_, index) => isDefined(start + index))
  }
  if (values.entries.length <= 1) return values.entries
  const seen = new Uint8Array(values.entries.length)
  for (let index = start; index < end; index += 1) {
    if (isDefined(index)) seen[values.codes[index] as number] = 1
  }
  return values.entries.filter((_, code) => seen[code] === 1)
}

/** Texts in the order of their UTF-8 bytes, which is not that of JavaScript's strings. */
function compareEntries(left: Entry, right: Entry): number {
  if (typeof left === 'number' && typeof right === 'number') return left - right
  return Buffer.compare(Buffer.from(String(left)), Buffer.from(String(right)))
}

export function joinBounds(left: ValueBounds, right: ValueBounds): ValueBounds {
  return {
    min: chooseBound(left.min, right.min, -1),
    max: chooseBound(left.max, right.max, 1),
    nulls: left.nulls + right.nulls,
  }
}

function chooseBound(left: Entry | null, right: Entry | null, sign: number): Entry | null {
  if (left === null || right === null) return left ?? right
  return sign * compareEntries(left, right) >= 0 ? left : right
}

/** As the footer's statistics take it. */
export function chunkStatistics(type: ColumnType, { min, max, nulls }: ValueBounds): Statistics {
  const null_count = BigInt(nulls)
  if (min === null || max === null) return { null_count }
  return { null_count, min_value: physical(type, min), max_value: physical(type, max) }
}

/** The column index of the pages. */
export function pageBounds(
  type: ColumnType,
  leaf: SchemaElement,
  pages: readonly ValueBounds[],
): PageBoundsList {
  const bytes = (value: Entry | null, isMax: boolean): Uint8Array | null =>
    value === null
      ? null
      : (unconvertMinMax(
          physical(type, value),
          leaf,
          isMax,
          parquetLimits.statisticsTruncateBytes,
        ) ?? null)
  return {
    pages: pages.map(({ min, max, nulls }) => ({
      min: bytes(min, false),
      max: bytes(max, true),
      nulls,
    })),
    ascending: isAscending(pages),
  }
}

function isAscending(pages: readonly ValueBounds[]): boolean {
  let before: ValueBounds | null = null
  for (const page of pages) {
    if (page.min === null || page.max === null) continue
    if (before?.min != null && compareEntries(before.min, page.min) > 0) return false
    if (before?.max != null && compareEntries(before.max, page.max) > 0) return false
    before = page
  }
  return true
}

/** A filter of the values, or null where there is none. */
export function bloomFilter(values: ColumnValues, leaf: SchemaElement): Uint32Array | null {
  const builder = new BloomBuilder(leaf)
  for (const value of new Set(valuesOf(values))) builder.insert(value)
  return builder.finalize() ?? null
}

function valuesOf(values: ColumnValues): Iterable<Entry> {
  return values.kind === 'numbers' ? values.values : presentEntries(values, 0, values.count)
}

function physical(type: ColumnType, value: Entry): string | number | bigint {
  const wide = type === 'int64' || type === 'timestamp'
  return wide ? BigInt(value) : value
}
