/**
 * The summary of a request as it comes back from a file of requests: JSON text that another program
 * may have written, or a disk may have damaged. Checked are the fields that the catalogue reads.
 */

import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { RequestSummary } from '../../collector/records.ts'
import { errorText, Ring2Error } from '../errors.ts'

const SHOWN_CHARACTERS = 40

const shape = Type.Object({
  request: Type.Object({
    traceId: Type.String(),
    requestId: Type.String(),
    spanId: Type.String(),
    startedAtMicros: Type.Integer(),
  }),
  model: Type.Object({ name: Type.String(), revision: Type.String(), engine: Type.String() }),
  producer: Type.Object({
    segment: Type.String(),
    boot: Type.String(),
    host: Type.String(),
  }),
  endedAtMicros: Type.Integer(),
  tokens: Type.Integer(),
  promptTokens: Type.Integer(),
  steps: Type.Integer(),
  verdict: Type.String(),
  completeness: Type.Object({ state: Type.String() }),
})

/** @throws Ring2Error RING2_E_STORE naming the file. */
export function summaryFrom(text: string, key: string): RequestSummary {
  const value = parse(text, key)
  if (isSummary(value)) return value
  const [first] = Value.Errors(shape, value)
  throw damaged(key, `${first?.instancePath ?? ''} ${first?.message ?? ''}`.trim())
}

function isSummary(value: unknown): value is RequestSummary {
  return Value.Check(shape, value)
}

function parse(text: string, key: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw damaged(key, `${errorText(error)} in ${JSON.stringify(text.slice(0, SHOWN_CHARACTERS))}`)
  }
}

function damaged(key: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `the summary of a request in ${key}`,
    actual,
    action: 'Move the file out of the store, or put a copy of it back, and rebuild again.',
  })
}
