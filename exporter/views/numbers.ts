/** Numbers as views show them: five significant digits, and null for what is not defined. Pure. */

const SIGNIFICANT_DIGITS = 5

/** Powers of ten up to here are exact as doubles, and so is their product with five digits. */
const EXACT_POWER_MAX = 10
const POWERS = Array.from({ length: EXACT_POWER_MAX + 1 }, (_, index) => 10 ** index)

/** Null for NaN, infinities and what is missing. What lies in the middle of two may become either. */
export function shown(value: number | null | undefined): number | null {
  if (value === null || value === undefined || !Number.isFinite(value)) return null
  // A whole number below 10^5 stays itself, and most cells of a sparse view are 0 or 1.
  if (Number.isInteger(value) && Math.abs(value) < 100_000) return value + 0
  const places = SIGNIFICANT_DIGITS - 1 - Math.floor(Math.log10(Math.abs(value)))
  if (Math.abs(places) > EXACT_POWER_MAX) return Number(value.toPrecision(SIGNIFICANT_DIGITS))
  // Both powers are exact, so the quotient is the double nearest to the decimal; text takes tenfold.
  const power = POWERS[Math.abs(places)] ?? 1
  return places >= 0 ? Math.round(value * power) / power : Math.round(value / power) * power
}

/** The same of each value of an array. */
export function shownAll(values: ArrayLike<number>): (number | null)[] {
  return Array.from(values, shown)
}

/** The least power of two of tokens in a cell so that `tokens` make at most `cells` cells. */
export function tokensPerCell(tokens: number, cells: number): number {
  let size = 1
  while (Math.ceil(tokens / size) > cells) size *= 2
  return size
}
