/**
 * Outcomes, and errors of the exporter in one form. The error class and its codes are the
 * collector's; this file adds how a refused system call becomes a RING2_E_STORE that names the
 * path, the errno and what to do.
 */

import { type ErrorCode, type ErrorFacts, Ring2Error } from '../collector/errors.ts'
import type { Outcome } from '../collector/records.ts'

export { type ErrorCode, type ErrorFacts, Ring2Error }

export function success<T>(value: T): Outcome<T> {
  return { status: 'success', value }
}

export function retryable(error: Error): Outcome<never> {
  return { status: 'retryable', error }
}

export function failure(error: Error): Outcome<never> {
  return { status: 'failure', error }
}

/** `ENOSPC` and the like, or null when the error did not come from the operating system. */
export function systemCode(error: unknown): string | null {
  if (typeof error !== 'object' || error === null || !('code' in error)) return null
  return typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code) ? error.code : null
}

/** The message of anything thrown, in one line. */
export function errorText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replaceAll(/\s+/g, ' ').trim()
}

const adviceByErrno: Readonly<Record<string, string>> = {
  ENOSPC: 'Free space or choose another store; captured data waits in the ring meanwhile.',
  EDQUOT: 'Raise the quota or choose another store; captured data waits in the ring meanwhile.',
  EROFS: 'Mount the directory writable or choose another store.',
  EACCES: 'Give the exporter write permission on the directory or choose another store.',
  EPERM: 'Give the exporter write permission on the directory or choose another store.',
  ENOENT: 'Create the directory or mend the path.',
  ENOTDIR: 'Name a directory, not a file.',
  EFBIG: 'Raise the file size limit of the process (ulimit -f).',
  EMFILE: 'Raise the limit of open files of the process (ulimit -n).',
  ENFILE: 'Raise the limit of open files of the machine.',
}

/** RING2_E_STORE for a system call that failed: names what was done, the path and the errno. */
export function storeError(doing: string, path: string, cause: unknown): Ring2Error {
  const errno = systemCode(cause)
  const actual = errno === null ? errorText(cause) : `${errno} (${errorText(cause)})`
  const advice = errno === null ? undefined : adviceByErrno[errno]
  return new Ring2Error('RING2_E_STORE', {
    expected: `to ${doing} ${path}`,
    actual,
    ...(advice === undefined ? {} : { action: advice }),
    cause,
  })
}

/** Anything thrown as a Ring2Error; what is not one already is a defect of the exporter. */
export function asRing2Error(error: unknown): Ring2Error {
  if (error instanceof Ring2Error) return error
  return new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: 'no error here',
    actual: errorText(error),
    cause: error,
  })
}
