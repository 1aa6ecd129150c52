/** A finding in words, for spans and for terminals. Pure. */
import type { Finding } from '../collector/records.ts'

/** `pattern.entropy_no_sink_mean 0.08 is below 0.1 in decode, layer 15 (collapsed)`. */
export function findingText(finding: Finding): string {
  const { statistic, value, bound, direction, layer, phase, verdict } = finding
  const places = [phase ?? [], layer === null ? [] : `layer ${layer}`].flat()
  const where = places.length === 0 ? '' : ` in ${places.join(', ')}`
  const [valueText, boundText] = apart(value, bound)
  return `${statistic} ${valueText} is ${direction} ${boundText}${where} (${verdict})`
}

/** Three significant digits, or as many as it takes to tell the two apart; no exponent where none is needed. */
function apart(value: number, bound: number): readonly [string, string] {
  for (let digits = 3; digits < 15; digits += 1) {
    const texts = [shortened(value, digits), shortened(bound, digits)] as const
    if (texts[0] !== texts[1]) return texts
  }
  return [String(value), String(bound)]
}

function shortened(value: number, digits: number): string {
  return String(Number(value.toPrecision(digits)))
}
