/**
 * Log lines on standard error: JSON for machines, one line of plain text for people.
 *
 * Standard output is never written to: it belongs to the commands' results.
 */

import { type Logger, type LoggerOptions, pino } from 'pino'
import type { Config } from './config/schema.ts'

export type { Logger }

/** Where lines go; the standard error of the process unless a test gives another. */
export interface LineSink {
  write(line: string): void
}

const levelNames: Readonly<Record<number, string>> = {
  20: 'DEBUG',
  30: 'INFO',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
}
const hiddenFields = new Set(['level', 'time', 'msg', 'pid', 'hostname'])

/** @param terminal whether standard error is a terminal; decides what `auto` means. */
export function createLogger(
  config: Config['log'],
  sink: LineSink = { write: (line) => void process.stderr.write(line) },
  terminal: boolean = process.stderr.isTTY === true,
): Logger {
  const asText = config.format === 'text' || (config.format === 'auto' && terminal)
  const options: LoggerOptions = { level: config.level, base: { pid: process.pid } }
  const destination = asText ? { write: (line: string) => sink.write(textLine(line)) } : sink
  return pino(options, destination)
}

/** `14:05:09.123 WARN  message key=value …` of one JSON line. */
function textLine(line: string): string {
  const fields = JSON.parse(line) as Record<string, unknown>
  const time = new Date(Number(fields.time)).toISOString().slice(11, 23)
  const level = (levelNames[Number(fields.level)] ?? String(fields.level)).padEnd(5)
  const rest = Object.entries(fields)
    .filter(([name]) => !hiddenFields.has(name))
    .map(([name, value]) => ` ${name}=${fieldText(name, value)}`)
    .join('')
  return `${time} ${level} ${fields.msg ?? ''}${rest}\n`
}

function fieldText(name: string, value: unknown): string {
  if (typeof value === 'string') return /^[\w.:/@+-]+$/.test(value) ? value : JSON.stringify(value)
  if (name === 'err' && typeof value === 'object' && value !== null && 'message' in value) {
    return JSON.stringify(value.message)
  }
  return JSON.stringify(value) ?? ''
}
