/**
 * Quantiles of healthy requests, and the bounds that follow from them. Pure.
 *
 * With n requests nothing is known of quantiles beyond 1/n: those are the extremes, widened by a
 * stated share of the range. Bounds lie a margin further out, since a request is held against many
 * statistics at once.
 */
import type { LearntQuantiles } from './baseline.ts'
import type { JudgedStatistic, Scale, Side } from './verdict-rules.ts'

/** Null: not bounded on that side. */
export interface Bounds {
  readonly low: number | null
  readonly high: number | null
}

/** For each decade that a quantile lies beyond 1/n, its extreme moves out by this share of the range. */
export const WIDENING_PER_DECADE = 0.25
/** Bounds lie this share of p99 − p1 beyond p0.1 and p99.9, or `marginMin` where that is more. */
export const MARGIN_SHARE = 0.25

/** Below it a logarithm is of noise. */
const LOG_MIN = 1e-9
const SHARE_MIN = 1e-6

export function onScale(value: number, scale: Scale): number {
  if (scale === 'linear') return value
  if (scale === 'log') return Math.log(Math.max(value, LOG_MIN))
  const share = Math.min(Math.max(value, SHARE_MIN), 1 - SHARE_MIN)
  return Math.log(share / (1 - share))
}

function fromScale(value: number, scale: Scale): number {
  if (scale === 'linear') return Math.max(0, value)
  return scale === 'log' ? Math.exp(value) : 1 / (1 + Math.exp(-value))
}

/**
 * @param values one per request, finite, at least one.
 * @param below scale of the quantiles up to the median; `above` of those beyond it.
 */
export function learnQuantiles(
  values: readonly number[],
  below: Scale,
  above: Scale = below,
): LearntQuantiles {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number): number => {
    const scale = share <= 0.5 ? below : above
    const scaled = sorted.map((value) => onScale(value, scale))
    return fromScale(quantile(scaled, share), scale)
  }
  return {
    n: values.length,
    p0_1: at(0.001),
    p1: at(0.01),
    p50: at(0.5),
    p99: at(0.99),
    p99_9: at(0.999),
  }
}

/** Linear between order statistics, widened beyond 1/n. */
function quantile(sorted: readonly number[], share: number): number {
  const n = sorted.length
  const first = sorted[0] ?? Number.NaN
  const last = sorted[n - 1] ?? Number.NaN
  const tail = Math.min(share, 1 - share)
  if (tail * n < 1) {
    const out = WIDENING_PER_DECADE * (last - first) * Math.log10(1 / (tail * n))
    return share < 0.5 ? first - out : last + out
  }
  const place = share * (n - 1)
  const below = Math.floor(place)
  const low = sorted[below] ?? first
  const high = sorted[Math.min(below + 1, n - 1)] ?? last
  return low + (place - below) * (high - low)
}

export function boundsOf(quantiles: LearntQuantiles, { below, above }: JudgedStatistic): Bounds {
  return {
    low: below === null ? null : moved(quantiles, quantiles.p0_1, below, -1),
    high: above === null ? null : moved(quantiles, quantiles.p99_9, above, 1),
  }
}

function moved({ p1, p99 }: LearntQuantiles, from: number, side: Side, direction: -1 | 1): number {
  const at = (value: number): number => onScale(value, side.scale)
  const margin = Math.max(side.marginMin, MARGIN_SHARE * (at(p99) - at(p1)))
  return fromScale(at(from) + direction * margin, side.scale)
}
