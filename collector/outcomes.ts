/** What a drain does with outcomes that it cannot go on without, and with errors that it logs. */
import type { Ring2Error } from './errors.ts'
import type { Outcome } from './records.ts'

export function must(outcome: Outcome<unknown>): void {
  if (outcome.status !== 'success') throw outcome.error
}

/** An error as a log has it. */
export function factsOf(error: Error): unknown {
  return 'toJSON' in error ? (error as Ring2Error).toJSON() : error.message
}
