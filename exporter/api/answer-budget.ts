/**
 * How much memory answers that are being sent may take together. An answer that does not fit is
 * refused at once, to be asked for again, instead of waiting: many slow readers must not make the
 * process grow, nor hold up what it is there for.
 */

import { Ring2Error } from '../errors.ts'

/** Seconds after which it is worth to ask again. */
export const RETRY_AFTER_SECONDS = 2

export interface AnswerBudget {
  /**
   * Takes bytes of the budget; what is returned gives them back, once. One answer always fits.
   *
   * @throws Ring2Error RING2_E_OVERLOADED
   */
  take(bytes: number): () => void
}

export function createAnswerBudget(bytesMax: number): AnswerBudget {
  let taken = 0
  function take(bytes: number): () => void {
    if (taken > 0 && taken + bytes > bytesMax) {
      throw new Ring2Error('RING2_E_OVERLOADED', {
        expected: `answers that take at most ${bytesMax} bytes of memory at once`,
        actual: `${taken} bytes are taken, and this answer needs ${bytes}`,
      })
    }
    taken += bytes
    let held = true
    return () => {
      if (held) taken -= bytes
      held = false
    }
  }
  return { take }
}
