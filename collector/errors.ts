/**
 * The one error class. Codes, their meaning and their HTTP status come from native/errors.json.
 */
import { type ErrorCode, errorTable } from './errors.gen.ts'

export type { ErrorCode }

export interface ErrorFacts {
  readonly expected: string
  readonly actual: string
  /** Replaces the table's advice where the place of the error knows better. */
  readonly action?: string
  readonly cause?: unknown
}

/** An error with a stable code that says what was expected, what came, and what to do. */
export class Ring2Error extends Error {
  readonly code: ErrorCode
  readonly http: number
  readonly expected: string
  readonly actual: string
  readonly action: string

  constructor(code: ErrorCode, facts: ErrorFacts) {
    const entry = errorTable[code]
    super(
      `${code}: ${entry.text} Expected ${facts.expected}; got ${facts.actual}.`,
      facts.cause === undefined ? {} : { cause: facts.cause },
    )
    this.name = 'Ring2Error'
    this.code = code
    this.http = entry.http
    this.expected = facts.expected
    this.actual = facts.actual
    this.action = facts.action ?? entry.action
  }

  toJSON(): Record<string, unknown> {
    return {
      code: this.code,
      title: errorTable[this.code].text,
      expected: this.expected,
      actual: this.actual,
      action: this.action,
    }
  }
}

const codesById = new Map<number, ErrorCode>(
  Object.entries(errorTable).map(([code, entry]) => [entry.id, code as ErrorCode]),
)

/** The error for a negative return value of the native library and its message. */
export function nativeError(returned: number, call: string, message: string): Ring2Error {
  const code = codesById.get(-returned) ?? 'RING2_E_INTERNAL'
  return new Ring2Error(code, { expected: `${call} to succeed`, actual: message })
}
