/**
 * JSON for people and programs: indented, but a list of plain values stays on one line, and so does
 * an object of plain values that is short. Pure.
 */

/** Columns up to which an object of plain values stays on one line. */
const columnsMax = 240

/** @param value whatever JSON.stringify takes. */
export function jsonText(value: unknown): string {
  return written(JSON.parse(JSON.stringify(value)), '')
}

function written(value: unknown, indent: string): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const entries: [string, unknown][] = Object.entries(value)
  const line = entries.some(([, one]) => typeof one === 'object' && one !== null)
    ? null
    : onOneLine(entries, isList)
  if (line !== null && (isList || indent.length + line.length <= columnsMax)) return line
  const parts = entries.map(
    ([name, one]) => `${inner}${isList ? '' : `${JSON.stringify(name)}: `}${written(one, inner)}`,
  )
  const [open, close] = isList ? ['[', ']'] : ['{', '}']
  return `${open}\n${parts.join(',\n')}\n${indent}${close}`
}

function onOneLine(entries: readonly [string, unknown][], isList: boolean): string {
  if (isList) return `[${entries.map(([, one]) => JSON.stringify(one)).join(', ')}]`
  if (entries.length === 0) return '{}'
  const parts = entries.map(([name, one]) => `${JSON.stringify(name)}: ${JSON.stringify(one)}`)
  return `{ ${parts.join(', ')} }`
}
