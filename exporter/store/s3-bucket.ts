/**
 * One bucket as the files beside this one share it: its client, the addresses and the encryption of
 * its objects, and what its errors mean. Not here: what is done with objects (s3.ts, s3-upload.ts).
 *
 * An error is never a reason to give an object up: what concerns the bucket as a whole (unreachable,
 * busy, forbidden, missing) is retryable, because someone mends it; only what the server refuses of
 * one object is a failure, and then the other objects are not held up by it.
 */

import type { S3Client } from '@aws-sdk/client-s3'
import type { Outcome } from '../../collector/records.ts'
import { errorText, failure, Ring2Error, retryable } from '../errors.ts'
import type { BucketTarget } from './location.ts'
import { httpStatus, nameOf } from './upload-failure.ts'

export interface Bucket {
  readonly client: S3Client
  readonly target: BucketTarget
  /** Bucket and endpoint, for messages. */
  readonly where: string
  /** Whether the server takes conditional writes; false once it has said that it does not. */
  conditional: boolean
}

export function address(bucket: Bucket, key: string): { Bucket: string; Key: string } {
  const { bucket: name, prefix } = bucket.target
  return { Bucket: name, Key: prefix === '' ? key : `${prefix}/${key}` }
}

/** How the server encrypts what is written; nothing where the bucket's own default holds. */
export function encryption({ target }: Bucket) {
  if (target.encryption === null) return {}
  const { algorithm, kmsKeyId } = target.encryption
  return {
    ServerSideEncryption: algorithm,
    ...(kmsKeyId === null ? {} : { SSEKMSKeyId: kmsKeyId }),
  }
}

/**
 * Writes only where nothing is. A server that knows no such condition is asked once: there, a key
 * that is written twice is overwritten, with the same bytes, because a file's key is its own.
 */
export async function ifNoneThere<T>(
  bucket: Bucket,
  send: (condition: { readonly IfNoneMatch?: string }) => Promise<T>,
): Promise<T> {
  if (!bucket.conditional) return send({})
  try {
    return await send({ IfNoneMatch: '*' })
  } catch (error) {
    if (httpStatus(error) !== 501) throw error
    bucket.conditional = false
    return send({})
  }
}

/** Of the whole bucket or of the moment, not of one object: 403 is the policy, 404 the bucket. */
const temporaryStatuses = new Set([401, 403, 404, 408, 409, 412, 429])

export function outcomeOf(bucket: Bucket, doing: string, error: unknown): Outcome<never> {
  const mapped = bucketError(bucket, doing, error)
  const status = httpStatus(error)
  const final = status !== null && status >= 400 && status < 500 && !temporaryStatuses.has(status)
  return final ? failure(mapped) : retryable(mapped)
}

export function isMissing(error: unknown): boolean {
  return nameOf(error) === 'NoSuchKey' || nameOf(error) === 'NotFound'
}

/** A conditional write found the key taken. */
export function isPresent(error: unknown): boolean {
  return httpStatus(error) === 412
}

const CREDENTIALS_ADVICE =
  'Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role they come from.'
const ENDPOINT_ADVICE = 'Check the endpoint of the store URL; files wait in the queue meanwhile.'
const NETWORK_ADVICE = 'Check the network to the endpoint; files wait in the queue meanwhile.'
const BUSY_ADVICE = 'The server is overloaded; files wait in the queue, and are sent more slowly.'

/** HTTP 403 without a body, as a HEAD gets it: the server's code is not in it. */
const FORBIDDEN = 'Forbidden'

const adviceByName: Readonly<Record<string, string>> = {
  SignatureDoesNotMatch: `The secret key is wrong. ${CREDENTIALS_ADVICE}`,
  InvalidAccessKeyId: `The access key is not known there. ${CREDENTIALS_ADVICE}`,
  CredentialsProviderError: `No credentials were found. ${CREDENTIALS_ADVICE}`,
  ExpiredToken: `The session has expired. ${CREDENTIALS_ADVICE}`,
  RequestTimeTooSkewed: 'Set the clock of this machine right.',
  [FORBIDDEN]: `The key or its permissions may be wrong, the answer does not say. ${CREDENTIALS_ADVICE}`,
  AccessDenied: 'Give the credentials permission to list, read, write and delete in the bucket.',
  NoSuchBucket: 'Create the bucket or mend its name in the store URL.',
  BadDigest: 'Bytes were changed on their way or on disk: check memory, disk and network.',
  SlowDown: BUSY_ADVICE,
  ServiceUnavailable: BUSY_ADVICE,
  ECONNREFUSED: ENDPOINT_ADVICE,
  ENOTFOUND: ENDPOINT_ADVICE,
  ECONNRESET: NETWORK_ADVICE,
  TimeoutError: NETWORK_ADVICE,
}

export function bucketError(bucket: Bucket, doing: string, cause: unknown): Ring2Error {
  if (cause instanceof Ring2Error) return cause
  const status = httpStatus(cause)
  const code = nameOf(cause)
  const unnamed = code === 'Unknown' || code === 'UnknownError' || code === '403'
  const name = status === 403 && unnamed ? FORBIDDEN : code
  const http = status === null ? '' : `, HTTP ${status}`
  const advice = adviceByName[name] ?? (status === 403 ? adviceByName.AccessDenied : undefined)
  return new Ring2Error('RING2_E_STORE', {
    expected: `to ${doing} ${bucket.where}`,
    actual: `${name}${http} (${errorText(cause)})`,
    ...(advice === undefined ? {} : { action: advice }),
    cause,
  })
}
