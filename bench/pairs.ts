/**
 * What every benchmark here does: two sides measured in alternating pairs of one run, and their
 * ratios with the spread. Not here: what is measured.
 */

/** One figure as `npm run bench -- --json` prints it. */
export interface Result {
  readonly name: string
  readonly unit: string
  readonly ours: number
  readonly peers: Readonly<Record<string, number>>
  /** Null where there is nothing to compare with. */
  readonly ratio: Ratio | null
}

export interface Ratio {
  readonly vs: string
  readonly median: number
  readonly min: number
  readonly max: number
  readonly pairs: number
}

/** Measures once and returns the figure, in the unit of the comparison. */
export type Measure = () => number | Promise<number>

export interface Comparison {
  readonly name: string
  readonly unit: string
  /** Name of the other side. */
  readonly vs: string
  readonly ours: Measure
  readonly theirs: Measure
  readonly pairs: number
  /** Turns of each side before any counts: they warm code and page cache up. */
  readonly warmUps?: number
}

/** The ratio of a pair is ours over theirs; values are medians over the pairs. */
export async function comparePairs(comparison: Comparison): Promise<Result> {
  const { name, unit, vs, pairs } = comparison
  for (let turn = 0; turn < (comparison.warmUps ?? 1); turn += 1) {
    await comparison.ours()
    await comparison.theirs()
  }
  const ours: number[] = []
  const theirs: number[] = []
  for (let pair = 0; pair < pairs; pair += 1) {
    // Who goes first alternates, so that neither always finds the warmer cache.
    const oursFirst = pair % 2 === 0
    if (oursFirst) ours.push(await comparison.ours())
    theirs.push(await comparison.theirs())
    if (!oursFirst) ours.push(await comparison.ours())
  }
  return { name, unit, ...pairedFigures(vs, ours, theirs) }
}

/** Figures of pairs that were measured elsewhere, in the order of the pairs. */
export function pairedFigures(
  vs: string,
  ours: readonly number[],
  theirs: readonly number[],
): Pick<Result, 'ours' | 'peers' | 'ratio'> {
  const ratios = ours.map((value, index) => value / (theirs[index] ?? Number.NaN))
  return {
    ours: round(median(ours)),
    peers: { [vs]: round(median(theirs)) },
    ratio: {
      vs,
      median: round(median(ratios)),
      min: round(Math.min(...ratios)),
      max: round(Math.max(...ratios)),
      pairs: ratios.length,
    },
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2
}

/** Three significant digits: more would only be noise. */
export function round(value: number): number {
  return Number(value.toPrecision(3))
}
