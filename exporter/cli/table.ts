/** Tables and numbers for a terminal. Pure. */

export interface TableColumn {
  readonly title: string
  readonly right?: boolean
}

export type Style = (text: string) => string

/** Colours on a terminal that wants them (https://no-color.org), plain text elsewhere. */
export function styles(terminal: boolean = process.stdout.isTTY === true) {
  const colour = terminal && (process.env.NO_COLOR ?? '') === ''
  const style =
    (code: number): Style =>
    (text) =>
      colour ? `\u001b[${code}m${text}\u001b[0m` : text
  return { bold: style(1), dim: style(2), green: style(32), yellow: style(33), cyan: style(36) }
}

export function table(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
  head: Style = (text) => text,
): string {
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...rows.map((row) => (row[index] ?? '').length)),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) =>
        columns[index]?.right === true
          ? cell.padStart(widths[index] ?? 0)
          : cell.padEnd(widths[index] ?? 0),
      )
      .join('  ')
      .trimEnd()
  return [head(line(columns.map((column) => column.title))), ...rows.map(line)].join('\n')
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function bytesText(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

/** A number in a few characters; `–` where there is none. */
export function numberText(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined) return '–'
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1)
  return Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toFixed(digits)
}

const bars = '▁▂▃▄▅▆▇█'

/** Values as a line of bars on a logarithmic scale, which is how norms grow with depth. */
export function sparkline(values: readonly (number | null)[]): string {
  const logs = values.map((value) => (value === null || value <= 0 ? null : Math.log(value)))
  const known = logs.filter((value) => value !== null)
  const low = Math.min(...known)
  const span = Math.max(...known) - low
  return logs
    .map((value) => {
      if (value === null) return ' '
      const share = span === 0 ? 0.5 : (value - low) / span
      return bars[Math.min(bars.length - 1, Math.floor(share * bars.length))]
    })
    .join('')
}

/** `1 file`, `2 files`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
