/**
 * Spans that an exporter could not send before it ended, or was killed, are sent by the next one: the
 * store has every ended request, and the catalogue is told which of them have been sent.
 */
import type { RequestSummary } from '../collector/index.ts'
import type { Catalog } from './catalog/catalog.ts'
import type { RequestKey } from './catalog/sent.ts'
import { errorText } from './errors.ts'
import { serviceLimits } from './limits.ts'
import type { Logger } from './logging.ts'

export interface SentRequests {
  /** The spans of a request have been sent. */
  add(key: RequestKey): void
  /** Hands the requests of earlier starts to the sink, a few at a time; null when none is sent. */
  start(spans: { finish(summary: RequestSummary): void } | null): void
  /** Writes down what was sent since. */
  stop(): void
}

export function createSentRequests(catalog: Catalog, logger: Logger): SentRequests {
  let sent: RequestKey[] = []
  let timer: NodeJS.Timeout | null = null
  let stopped = false
  let tracking = true
  let failing = false

  /** Never throws: what cannot be written down is sent once more by the next start. */
  function attempt<T>(act: () => T): T | null {
    try {
      const value = act()
      failing = false
      return value
    } catch (error) {
      const text = 'the catalogue cannot be told which spans were sent'
      if (!failing) logger.warn({ error: errorText(error) }, text)
      failing = true
      return null
    }
  }

  function write(): void {
    if (sent.length === 0) return
    const keys = sent
    sent = []
    attempt(() => catalog.markSent(keys, Date.now() * 1000))
  }

  async function sendAll(
    keys: readonly RequestKey[],
    spans: { finish(summary: RequestSummary): void },
  ): Promise<void> {
    for (const [index, key] of keys.entries()) {
      if (index % serviceLimits.unsentAtOnce === 0) await new Promise((next) => setImmediate(next))
      if (stopped) return
      const summary = attempt(() => catalog.summary(key))
      if (summary !== null) spans.finish(summary)
    }
  }

  return {
    add(key) {
      if (tracking) sent.push(key)
    },
    start(spans) {
      tracking = spans !== null
      if (spans === null) {
        attempt(() => catalog.stopTracking())
        return
      }
      timer = setInterval(write, serviceLimits.sentWriteMillis)
      timer.unref()
      const unsent = attempt(() => catalog.unsent(Date.now() * 1000))
      if (unsent === null || unsent.keys.length === 0) return
      const { keys, beyond } = unsent
      logger.info({ requests: keys.length, beyond }, 'sending spans that an earlier start did not')
      void sendAll(keys, spans)
    },
    stop() {
      stopped = true
      if (timer !== null) clearInterval(timer)
      write()
    },
  }
}
