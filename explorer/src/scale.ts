/** From values to shares of a colour map and back: linear, by square root, by logarithm. Pure. */

export type ScaleKind = 'linear' | 'root' | 'log'

export interface Scale {
  readonly kind: ScaleKind
  readonly low: number
  readonly high: number
  /** 0 at low, 1 at high; beyond them the nearer end. */
  share(value: number): number
  value(share: number): number
}

/** A logarithm needs values above 0; without them the scale is linear. */
export function createScale(wanted: ScaleKind, low: number, high: number): Scale {
  const kind = wanted === 'log' && low <= 0 ? 'linear' : wanted
  const [bend, unbend] = bends[kind]
  const from = bend(low)
  const span = bend(high) - from
  return {
    kind,
    low,
    high,
    share(value) {
      if (value <= low || span <= 0) return 0
      return value >= high ? 1 : (bend(value) - from) / span
    },
    value: (share) => unbend(from + span * share),
  }
}

type Bend = (value: number) => number

const bends: Record<ScaleKind, readonly [Bend, Bend]> = {
  linear: [(value) => value, (value) => value],
  root: [(value) => Math.sqrt(Math.max(0, value)), (value) => value * value],
  log: [Math.log, Math.exp],
}

/** Smallest and largest of what is there; null when nothing is. */
export function rangeOf(values: Iterable<number | null>): readonly [number, number] | null {
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  for (const value of values) {
    if (value === null) continue
    if (value < low) low = value
    if (value > high) high = value
  }
  return low <= high ? [low, high] : null
}
