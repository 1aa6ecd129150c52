/** What every command shares: exit codes, output, and how an error is shown to a person. */
import { asRing2Error, type Ring2Error, systemCode } from '../errors.ts'
import { jsonText } from './json-text.ts'
import { inShellWords } from './shell-words.ts'

export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  incomplete: 4,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** Results go to standard output and nothing else does. */
export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
}

export function printJson(document: unknown): void {
  print(jsonText(document))
}

/** For people, on standard error. */
export function tell(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** An answer that is right as far as it goes, and may lack what another exporter stored. */
export function tellLocalOnly(problem: Ring2Error): void {
  tell(`this may not be all there is: ${problem.message}`)
}

let readerGone = false

/** True once whoever read standard output has gone, as `head` does: nothing more need be shown. */
export function outputGone(): boolean {
  return readerGone
}

/**
 * Lets a command end in its own order, cleaning up, when its output's reader has gone. Node ignores
 * SIGPIPE and gives the stream an error instead, which nobody else would take.
 */
export function surviveClosedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => {
      if (systemCode(error) !== 'EPIPE') throw error
      readerGone ||= stream === process.stdout
    })
  }
}

const usageCodes = new Set(['RING2_E_CONFIG', 'RING2_E_QUERY', 'RING2_E_TRACE_ID'])
const missingCodes = new Set(['RING2_E_TRACE_UNKNOWN', 'RING2_E_TENSOR_UNKNOWN'])

/** Shows an error and gives the exit code that it means. */
export function showError(thrown: unknown): ExitCode {
  const error = asRing2Error(thrown)
  const facts = error.toJSON()
  tell(`${error.code}: ${facts.title}`)
  const words = inShellWords(error)
  tell(`  expected  ${words.expected}`)
  tell(`  got       ${words.actual}`)
  tell(`  do        ${words.action}`)
  if (usageCodes.has(error.code)) return exitCodes.usage
  if (missingCodes.has(error.code)) return exitCodes.notFound
  return error.code === 'RING2_E_INCOMPLETE' ? exitCodes.incomplete : exitCodes.failed
}
