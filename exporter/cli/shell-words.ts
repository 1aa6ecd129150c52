/**
 * Errors in the words of the shell. The reader and the API speak of query parameters; who typed a
 * command wants the option. Only whole known phrases are put into other words, at the places where
 * no value of the user stands. Pure.
 */
import { errorTable } from '../../collector/errors.gen.ts'
import type { ErrorCode, Ring2Error } from '../errors.ts'

const actions: Partial<Record<ErrorCode, string>> = {
  RING2_E_QUERY: 'Use the values the message names; --help of the command describes them.',
  RING2_E_TENSOR_UNKNOWN: 'List what the trace has with `ring2-exporter ls TRACE_ID`.',
}

const phrases: readonly (readonly [RegExp, string])[] = [
  [/^request_id, as /, '--request ID, as '],
  [/^a request_id with /, 'a request (--request ID) with '],
  [/^no request_id$/, 'no --request'],
  [/^rank, as /, '--rank RANK, as '],
  [/^producer, as /, '--producer PRODUCER, as '],
  [/^no rank$/, 'no --rank'],
  [/^tokens=/, '--tokens '],
  [/^heads=/, '--heads '],
  [/\(tokens=a:b\)/, '(--tokens a:b)'],
  [/\(heads=0,1\)/, '(--heads 0,1)'],
]

export interface ShellError {
  readonly expected: string
  readonly actual: string
  readonly action: string
}

export function inShellWords(error: Ring2Error): ShellError {
  // Advice that the place of the error gave knows better than ours.
  const general = error.action === errorTable[error.code].action
  return {
    expected: reworded(error.expected),
    actual: reworded(error.actual),
    action: reworded(general ? (actions[error.code] ?? error.action) : error.action),
  }
}

function reworded(text: string): string {
  return phrases.reduce((result, [pattern, words]) => result.replace(pattern, words), text)
}
