/**
 * Why an upload failed, in the few words that a metric counts by. Errors of the SDK are recognised
 * by their shape, so nothing here loads it.
 */

import { systemCode } from '../errors.ts'

export const uploadFailures = [
  'unreachable',
  'throttled',
  'server_error',
  'forbidden',
  'no_bucket',
  'refused',
] as const

/**
 * `unreachable`: no answer, or cut off. `throttled`: 429, 503. `server_error`: other 5xx.
 * `forbidden`: 401, 403, no credentials. `no_bucket`: it does not exist. `refused`: anything else,
 * such as a key that holds another object, or a queued file that cannot be read.
 */
export type UploadFailure = (typeof uploadFailures)[number]

/** @param error as the store gave it: the SDK's own is its cause. */
export function uploadFailure(error: Error): UploadFailure {
  const cause = error.cause ?? error
  const status = httpStatus(cause)
  if (status === null) return withoutAnswer(cause)
  if (status === 429 || status === 503) return 'throttled'
  if (status >= 500) return 'server_error'
  if (status === 401 || status === 403) return 'forbidden'
  return nameOf(cause) === 'NoSuchBucket' ? 'no_bucket' : 'refused'
}

function withoutAnswer(cause: unknown): UploadFailure {
  if (nameOf(cause) === 'CredentialsProviderError') return 'forbidden'
  const call = cause instanceof Error && 'syscall' in cause ? cause.syscall : null
  const local = call === 'open' || call === 'read' || call === 'scandir' || call === 'unlink'
  if (local) return 'refused'
  const network = systemCode(cause) !== null || /Timeout|Abort/.test(nameOf(cause))
  return network ? 'unreachable' : 'refused'
}

/** Of an answer that the SDK made an error of; null where there was none. */
export function httpStatus(error: unknown): number | null {
  if (typeof error !== 'object' || error === null || !('$metadata' in error)) return null
  const metadata = error.$metadata
  if (typeof metadata !== 'object' || metadata === null) return null
  if (!('httpStatusCode' in metadata) || metadata.httpStatusCode === undefined) return null
  return Number(metadata.httpStatusCode)
}

/** The system's code, or the name that the server gave the error. */
export function nameOf(error: unknown): string {
  return systemCode(error) ?? (error instanceof Error ? error.name : 'error')
}
