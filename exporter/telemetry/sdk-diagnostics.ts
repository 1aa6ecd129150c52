/**
 * Forwards the OpenTelemetry SDK's own messages to our log: each one once, so that a Collector that
 * is down does not fill the log with one line per try.
 */

import { type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api'
import type { Logger } from '../logging.ts'

/** Messages remembered; beyond it they are logged at debug level only. */
const MESSAGES_MAX = 100
const MESSAGE_CHARACTERS_MAX = 300
/** Reported by the watched metric exporter already, in our own words. */
const reportedElsewhere = /metrics export failed|export timed out/

export function forwardDiagnostics(logger: Logger): void {
  const seen = new Set<string>()
  const once = (parts: readonly unknown[]): void => {
    const text = parts.map(String).join(' ').slice(0, MESSAGE_CHARACTERS_MAX)
    const isNew = !seen.has(text) && seen.size < MESSAGES_MAX && !reportedElsewhere.test(text)
    if (isNew) {
      seen.add(text)
      logger.warn({ from: 'opentelemetry' }, text)
    } else logger.debug({ from: 'opentelemetry' }, text)
  }
  const quiet = (...parts: unknown[]): void => {
    logger.debug({ from: 'opentelemetry' }, parts.map(String).join(' '))
  }
  const forward: DiagLogger = {
    error: (...parts) => once(parts),
    warn: (...parts) => once(parts),
    info: quiet,
    debug: quiet,
    verbose: quiet,
  }
  const logLevel = DiagLogLevel.WARN
  diag.setLogger(forward, { logLevel, suppressOverrideMessage: true })
}
