/** Numbers, times and tokens as text for readers. Pure. */
import type { Token } from './shapes.ts'

export function numberText(value: number | null, digits = 3): string {
  if (value === null) return '–'
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    return value.toExponential(digits - 1)
  }
  const rounded = Number(value.toPrecision(Math.max(digits, wholeDigits(value))))
  return rounded.toLocaleString('en', { maximumFractionDigits: 20 })
}

function wholeDigits(value: number): number {
  return Math.abs(value) < 1 ? 1 : Math.floor(Math.log10(Math.abs(value))) + 1
}

export function shareText(value: number | null): string {
  if (value === null) return '–'
  const percent = value * 100
  if (percent > 0 && percent < 0.1) return '< 0.1 %'
  return `${percent.toFixed(1)} %`
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

const zones = new Intl.DateTimeFormat('en', { timeZoneName: 'short' })

/** The reader's own clock, with the name of its zone; the API's text, in UTC, stays beside it as a title. */
export function timeText(iso: string): string {
  const time = new Date(iso)
  if (Number.isNaN(time.getTime())) return iso
  const two = (value: number): string => String(value).padStart(2, '0')
  const date = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join('-')
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':')
  const zone = zones.formatToParts(time).find(({ type }) => type === 'timeZoneName')?.value ?? ''
  return `${date} ${clock} ${zone}`.trim()
}

export function durationText(from: string, to: string | null): string {
  if (to === null) return 'running'
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000
  return Number.isFinite(seconds) ? `${seconds.toFixed(seconds < 10 ? 2 : 1)} s` : '–'
}

/** A token in running text: what cannot be seen gets a sign, an unknown text its id. */
export function tokenText(token: Pick<Token, 'text' | 'id' | 'position'>): string {
  if (token.text === null) return token.id === null ? `·${token.position}` : `#${token.id}`
  if (token.text === '') return '∅'
  return token.text.replaceAll('\r', '␍').replaceAll('\n', '↵\n').replaceAll('\t', '⇥\t')
}

/** A token within a sentence: in quotes, on one line. */
export function quotedToken(token: Pick<Token, 'text' | 'id' | 'position'> | undefined): string {
  if (token === undefined) return ''
  if (token.text === null) return token.id === null ? '' : `#${token.id}`
  return `“${token.text.replaceAll('\n', '↵').replaceAll('\r', '␍').replaceAll('\t', '⇥')}”`
}

export function count(number: number, one: string, several = `${one}s`): string {
  return `${number.toLocaleString('en')} ${number === 1 ? one : several}`
}
