/**
 * Sets of token positions as sorted, disjoint, half-open ranges. Pure functions.
 */

import type { TokenRange } from './selection.ts'

/** The union: sorted, without empty ranges, neighbours joined. */
export function unite(ranges: Iterable<TokenRange>): TokenRange[] {
  const sorted = [...ranges].filter((range) => range.start < range.end)
  sorted.sort((left, right) => left.start - right.start)
  const united: TokenRange[] = []
  for (const range of sorted) {
    const last = united.at(-1)
    const { start, end } = range
    if (last === undefined || start > last.end) united.push({ start, end })
    else united[united.length - 1] = { start: last.start, end: Math.max(last.end, end) }
  }
  return united
}

/** The parts of `ranges` inside `bounds`. `ranges` is a union. */
export function clip(ranges: readonly TokenRange[], bounds: TokenRange): TokenRange[] {
  return ranges
    .map((range) => ({
      start: Math.max(range.start, bounds.start),
      end: Math.min(range.end, bounds.end),
    }))
    .filter((range) => range.start < range.end)
}

/** The positions of `ranges` that `taken` has not. Both are unions. */
export function subtract(
  ranges: readonly TokenRange[],
  taken: readonly TokenRange[],
): TokenRange[] {
  const left: TokenRange[] = []
  for (const range of ranges) {
    let start = range.start
    for (const hole of taken) {
      if (hole.end <= start || hole.start >= range.end) continue
      if (hole.start > start) left.push({ start, end: hole.start })
      start = Math.max(start, hole.end)
    }
    if (start < range.end) left.push({ start, end: range.end })
  }
  return left
}

/** `0:5,7:9`; empty text for none. */
export function rangesText(ranges: readonly TokenRange[]): string {
  return ranges.map((range) => `${range.start}:${range.end}`).join(',')
}
