/** A finding in words, for spans and for terminals. Pure. */
import type { Finding } from '../collector/records.ts'

/** `pattern.entropy_no_sink_mean 0.08 is below 0.1 in decode, layer 15 (collapsed)`. */
export function findingText(finding: Finding): string {
  const { statistic, value, bound, direction, layer, phase, verdict } = finding
  const places = [phase ?? [], layer === null ? [] : `layer ${layer}`].flat()
  const where = places.length === 0 ? '' : ` in ${places.join(', ')}`
  return `${statistic} ${digits(value)} is ${direction} ${digits(bound)}${where} (${verdict})`
}

/** Three significant digits, without an exponent where there is none needed. */
function digits(value: number): string {
  return String(Number(value.toPrecision(3)))
}
