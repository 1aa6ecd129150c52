/**
 * What a heat map shows, in units of the data: patches of cells, the part in view, and reading the value
 * under a point. Pure; drawing is heat-map.ts.
 */
import type { Rgb } from './colour.ts'

/** Half open. */
export interface Span {
  readonly start: number
  readonly end: number
}

export interface Area {
  readonly x: Span
  readonly y: Span
}

/** Cells of equal size, row by row. */
export interface Patch {
  readonly x: number
  readonly y: number
  readonly cellWidth: number
  readonly cellHeight: number
  readonly columns: number
  readonly rows: number
  readonly values: readonly (number | null)[]
}

export interface Point {
  readonly x: number
  readonly y: number
}

/** Bars beside the cells: along the top per column, at the right per row. */
export interface Strip {
  readonly title: string
  readonly start: number
  readonly cell: number
  /** Lengths of the bars, 0 to 1. */
  readonly values: readonly (number | null)[]
  /** Drawn in the colour that marks something, and named in it. */
  readonly marked: { readonly index: number; readonly title: string } | null
}

export interface Picture {
  readonly label: string
  readonly xTitle: string
  readonly yTitle: string
  readonly yName: (y: number) => string
  /** All that there is. */
  readonly extent: Area
  readonly view: Area
  /** Whether the y axis takes part in zooming. */
  readonly zoomY: boolean
  readonly square: boolean
  /** Coarse ones first: later patches lie over earlier ones. */
  readonly patches: readonly Patch[]
  readonly colour: (value: number) => Rgb
  /** Changes whenever `colour` does. */
  readonly colourKey: string
  readonly cursor: Point | null
  readonly top: Strip | null
  readonly right: Strip | null
}

export interface Reading {
  /** The data that the cell covers. */
  readonly area: Area
  readonly value: number | null
  readonly patch: Patch
  readonly index: number
}

/** The finest cell at a point; null where no patch is. */
export function readingAt({ patches }: Picture, { x, y }: Point): Reading | null {
  for (const patch of [...patches].reverse()) {
    const column = Math.floor((x - patch.x) / patch.cellWidth)
    const row = Math.floor((y - patch.y) / patch.cellHeight)
    if (column < 0 || row < 0 || column >= patch.columns || row >= patch.rows) continue
    const index = row * patch.columns + column
    const left = patch.x + column * patch.cellWidth
    const upper = patch.y + row * patch.cellHeight
    return {
      area: {
        x: { start: left, end: left + patch.cellWidth },
        y: { start: upper, end: upper + patch.cellHeight },
      },
      value: patch.values[index] ?? null,
      patch,
      index,
    }
  }
  return null
}

/** The span moved and cut so that it lies within the whole. */
export function within(span: Span, whole: Span): Span {
  const length = Math.min(span.end - span.start, whole.end - whole.start)
  const start = Math.min(Math.max(span.start, whole.start), whole.end - length)
  return { start, end: start + length }
}

/** @param factor above 1 shows less of the data, below 1 more; in whole units, about a middle. */
export function zoomed(
  span: Span,
  whole: Span,
  factor: number,
  middle: number,
  least: number,
): Span {
  const full = whole.end - whole.start
  const length = Math.min(
    full,
    Math.max(Math.min(least, full), Math.round((span.end - span.start) / factor)),
  )
  const share = (middle - span.start) / (span.end - span.start)
  const start = Math.round(middle - share * length)
  return within({ start, end: start + length }, whole)
}

/** `a:b`, as addresses have it. */
export function spanText({ start, end }: Span): string {
  return `${start}:${end}`
}

export function parseSpan(text: string | undefined, whole: Span): Span {
  const match = /^(\d{1,9}):(\d{1,9})$/.exec(text ?? '')
  if (match === null) return whole
  const start = Number(match[1])
  const end = Number(match[2])
  return end > start ? within({ start, end }, whole) : whole
}
