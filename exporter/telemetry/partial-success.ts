/**
 * Reads what a Collector answers to an export that it accepted: how many items it rejected all the
 * same, and what it has to say.
 *
 * A status OK is acceptance, so an answer whose body cannot be read counts as one; sending again
 * would at best store everything twice. Source: OTLP specification, "Partial Success".
 */

import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { deliveryLimits } from './limits.ts'

export interface PartialSuccess {
  readonly rejected: number
  readonly message: string
}

export interface AnswerReader {
  /** Reads an answer and logs what is new in it; never throws. */
  read(data: Uint8Array): void
  /** Items rejected by the answers since the last call. */
  take(): number
}

export function createAnswerReader(
  what: 'spans' | 'metrics',
  decode: (data: Uint8Array) => PartialSuccess,
  logger: Logger | null,
): AnswerReader {
  let rejected = 0
  let saidUnreadable = false
  let lastMessage = ''

  function decoded(data: Uint8Array): PartialSuccess {
    try {
      return decode(data)
    } catch (error) {
      if (!saidUnreadable) {
        const text = `the Collector answered OK with a body that is no OTLP; the ${what} count as taken`
        logger?.warn({ cause: errorText(error) }, text)
      }
      saidUnreadable = true
      return { rejected: 0, message: '' }
    }
  }

  return {
    read(data) {
      const answer = decoded(data)
      rejected += answer.rejected
      const reason = answer.message.slice(0, deliveryLimits.errorCharactersMax)
      // The same message comes with every export while its cause lasts.
      if (reason !== lastMessage && (reason !== '' || answer.rejected > 0)) {
        const facts = { rejected: answer.rejected, reason }
        logger?.warn(facts, `the Collector took only a part of the ${what}`)
      }
      lastMessage = reason
    },
    take() {
      const taken = rejected
      rejected = 0
      return taken
    },
  }
}
