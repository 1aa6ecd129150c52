/**
 * Says once that spans cannot be sent, once that some are lost, and once that they can be sent
 * again.
 */

import { Ring2Error } from '../../collector/errors.ts'
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { spanLimits } from './limits.ts'

export interface OutageLog {
  failed(cause: Error): void
  lost(reason: string, spans: number): void
  /** The Collector took a batch. */
  over(waiting: number): void
  /** Nothing more will be sent. */
  end(): void
  /** The error of the last try, or null. */
  error(): string | null
}

export function createOutageLog(logger: Logger): OutageLog {
  let failing: string | null = null
  let since = 0
  let lostMeanwhile = 0
  return {
    failed: (cause) => {
      const text = errorText(cause).slice(0, spanLimits.errorCharactersMax)
      if (failing === null) {
        since = performance.now()
        const error = new Ring2Error('RING2_E_TELEMETRY', {
          expected: 'the Collector to take the spans',
          actual: text,
          cause,
        })
        logger.warn({ code: error.code, action: error.action }, error.message)
      }
      failing = text
    },
    lost: (reason, spans) => {
      if (lostMeanwhile === 0) logger.warn({ reason }, 'spans are being lost')
      lostMeanwhile += spans
    },
    over: (waiting) => {
      if (failing !== null) {
        const seconds = Math.round((performance.now() - since) / 1000)
        logger.info({ seconds, waiting, lost: lostMeanwhile }, 'the Collector takes spans again')
        lostMeanwhile = 0
      }
      failing = null
    },
    end: () => {
      if (lostMeanwhile > 0) logger.warn({ lost: lostMeanwhile }, 'spans were lost')
      lostMeanwhile = 0
    },
    error: () => failing,
  }
}
