/**
 * Says once that spans (or metrics) cannot be sent, once that some are lost, and once that they can
 * be sent again; and once that some cannot even be encoded.
 */

import { Ring2Error } from '../../collector/errors.ts'
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { deliveryLimits } from './limits.ts'

export interface OutageLog {
  failed(cause: Error): void
  lost(reason: string, items: number): void
  /** Items that can never be sent are given up, whether the Collector is there or not. */
  unfit(cause: Error): void
  /** The Collector took a batch. */
  over(waiting: number): void
  /** Nothing more will be sent. */
  end(): void
  /** The error of the last try, or null. */
  error(): string | null
}

export function createOutageLog(logger: Logger, what: 'spans' | 'metrics'): OutageLog {
  let failing: string | null = null
  let since = 0
  let lostMeanwhile = 0
  let unfitBefore = false
  return {
    failed: (cause) => {
      const text = errorText(cause).slice(0, deliveryLimits.errorCharactersMax)
      if (failing === null) {
        since = performance.now()
        const error = new Ring2Error('RING2_E_TELEMETRY', {
          expected: `the Collector to take the ${what}`,
          actual: text,
          cause,
        })
        logger.warn({ code: error.code, action: error.action }, error.message)
      }
      failing = text
    },
    lost: (reason, items) => {
      if (lostMeanwhile === 0) logger.warn({ reason }, `${what} are being lost`)
      lostMeanwhile += items
    },
    unfit: (cause) => {
      if (unfitBefore) return
      unfitBefore = true
      const error = new Ring2Error('RING2_E_TELEMETRY', {
        expected: `${what} that OTLP has a form for`,
        actual: errorText(cause).slice(0, deliveryLimits.errorCharactersMax),
        action: 'What cannot be encoded is given up and counted as rejected; all else is sent.',
        cause,
      })
      logger.error({ code: error.code, action: error.action }, error.message)
    },
    over: (waiting) => {
      if (failing !== null) {
        const seconds = Math.round((performance.now() - since) / 1000)
        logger.info({ seconds, waiting, lost: lostMeanwhile }, `the Collector takes ${what} again`)
        lostMeanwhile = 0
      }
      failing = null
    },
    end: () => {
      if (lostMeanwhile > 0) logger.warn({ lost: lostMeanwhile }, `${what} were lost`)
      lostMeanwhile = 0
    },
    error: () => failing,
  }
}
