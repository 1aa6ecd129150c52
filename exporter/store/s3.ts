/**
 * The store in an S3-compatible bucket, by the AWS SDK. Credentials come from the SDK's default
 * chain (environment, profile, instance role). This is the only file that knows the SDK.
 */

import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import type { Outcome } from '../../collector/records.ts'
import { errorText, failure, Ring2Error, retryable, success, systemCode } from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import type { BucketTarget } from './location.ts'
import {
  assertObjectKey,
  isObjectKey,
  type ListOptions,
  type ObjectStore,
  objectDiffers,
  objectMissing,
  objectTooLarge,
  type PutResult,
  type StoredObject,
} from './object-store.ts'

interface Bucket {
  readonly client: S3Client
  readonly target: BucketTarget
  /** Bucket and endpoint, for messages. */
  readonly where: string
}

export function createBucketStore(target: BucketTarget): ObjectStore {
  const client = new S3Client({
    region: target.region,
    forcePathStyle: target.pathStyle,
    ...(target.endpoint === null ? {} : { endpoint: target.endpoint }),
    requestHandler: {
      requestTimeout: uploadLimits.requestMillisMax,
      connectionTimeout: uploadLimits.connectMillisMax,
    },
  })
  const where = `s3://${target.bucket} at ${target.endpoint ?? `AWS ${target.region}`}`
  const bucket = { client, target, where }
  return {
    put: (key, path) => putFile(bucket, assertObjectKey(key), path),
    putBytes: (key, bytes, options) =>
      putBytes(bucket, assertObjectKey(key), bytes, options?.ifAbsent ?? false),
    getRange: (key, start, length) => readRange(bucket, assertObjectKey(key), start, length),
    read: (key, bytesMax) => readWhole(bucket, assertObjectKey(key), bytesMax),
    size: (key) => sizeOf(bucket, assertObjectKey(key)),
    list: (prefix, options) => listObjects(bucket, prefix, options),
    delete: (key) => removeObject(bucket, assertObjectKey(key)),
    close: () => client.destroy(),
  }
}

function address(bucket: Bucket, key: string): { Bucket: string; Key: string } {
  const { bucket: name, prefix } = bucket.target
  return { Bucket: name, Key: prefix === '' ? key : `${prefix}/${key}` }
}

async function putFile(bucket: Bucket, key: string, path: string): Promise<Outcome<PutResult>> {
  const body = createReadStream(path, { highWaterMark: uploadLimits.readChunkBytes })
  try {
    const upload = new Upload({
      client: bucket.client,
      params: {
        ...address(bucket, key),
        Body: body,
        ContentType: 'application/vnd.apache.parquet',
        IfNoneMatch: '*',
      },
      partSize: uploadLimits.partBytes,
      queueSize: uploadLimits.partsInFlight,
    })
    await upload.done()
    return success('stored')
  } catch (error) {
    if (isPresent(error)) return confirmPresent(bucket, key, path)
    return outcomeOf(bucket, `upload ${key} to`, error)
  } finally {
    body.destroy()
  }
}

/** Whether the object that is there already is the one that was to be stored. */
async function confirmPresent(
  bucket: Bucket,
  key: string,
  path: string,
): Promise<Outcome<PutResult>> {
  try {
    const [file, there] = await Promise.all([stat(path), sizeOf(bucket, key)])
    return there === file.size ? success('present') : failure(objectDiffers(key, file.size, there))
  } catch (error) {
    return outcomeOf(bucket, `look at ${key} in`, error)
  }
}

async function putBytes(
  bucket: Bucket,
  key: string,
  bytes: Uint8Array,
  ifAbsent: boolean,
): Promise<Outcome<PutResult>> {
  try {
    await bucket.client.send(
      new PutObjectCommand({
        ...address(bucket, key),
        Body: bytes,
        ContentType: 'application/json',
        ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
      }),
    )
    return success('stored')
  } catch (error) {
    if (isPresent(error)) return success('present')
    return outcomeOf(bucket, `write ${key} into`, error)
  }
}

async function readWhole(
  bucket: Bucket,
  key: string,
  bytesMax: number,
): Promise<Uint8Array | null> {
  try {
    const answer = await bucket.client.send(new GetObjectCommand(address(bucket, key)))
    const bytes = answer.ContentLength ?? 0
    if (bytes <= bytesMax) return (await answer.Body?.transformToByteArray()) ?? new Uint8Array(0)
    discard(answer.Body)
    throw objectTooLarge(key, bytes, bytesMax)
  } catch (error) {
    if (isMissing(error)) return null
    throw bucketError(bucket, `read ${key} from`, error)
  }
}

async function readRange(
  bucket: Bucket,
  key: string,
  start: number,
  length: number,
): Promise<Uint8Array> {
  if (length === 0) return new Uint8Array(0)
  try {
    const range = `bytes=${start}-${start + length - 1}`
    const answer = await bucket.client.send(
      new GetObjectCommand({ ...address(bucket, key), Range: range }),
    )
    return (await answer.Body?.transformToByteArray()) ?? new Uint8Array(0)
  } catch (error) {
    throw isMissing(error) ? objectMissing(key, bucket.where) : bucketError(bucket, 'read', error)
  }
}

/** An answer that nobody reads would hold its connection. */
function discard(body: unknown): void {
  if (!(body instanceof Readable)) return
  // Its checksum is not that of the part that came.
  body.on('error', () => undefined)
  body.destroy()
}

async function sizeOf(bucket: Bucket, key: string): Promise<number | null> {
  try {
    const answer = await bucket.client.send(new HeadObjectCommand(address(bucket, key)))
    return answer.ContentLength ?? null
  } catch (error) {
    if (isMissing(error)) return null
    throw bucketError(bucket, 'look into', error)
  }
}

async function* listObjects(
  bucket: Bucket,
  prefix: string,
  { limit = Number.POSITIVE_INFINITY }: ListOptions = {},
): AsyncIterable<StoredObject> {
  const { prefix: base } = bucket.target
  const folder = base === '' ? '' : `${base}/`
  let left = limit
  let token: string | undefined
  while (left > 0) {
    const page = await listPage(bucket, folder + prefix, left, token)
    for (const object of page.Contents ?? []) {
      const key = (object.Key ?? '').slice(folder.length)
      if (!isObjectKey(key)) continue
      if (left <= 0) return
      left -= 1
      yield { key, bytes: object.Size ?? 0 }
    }
    token = page.NextContinuationToken
    if (token === undefined) return
  }
}

/** What S3 gives at most in one answer. */
const LIST_PAGE_MAX = 1000

async function listPage(bucket: Bucket, prefix: string, limit: number, token: string | undefined) {
  try {
    return await bucket.client.send(
      new ListObjectsV2Command({
        Bucket: bucket.target.bucket,
        Prefix: prefix,
        MaxKeys: Math.min(limit, LIST_PAGE_MAX),
        ...(token === undefined ? {} : { ContinuationToken: token }),
      }),
    )
  } catch (error) {
    throw bucketError(bucket, 'list', error)
  }
}

async function removeObject(bucket: Bucket, key: string): Promise<Outcome<void>> {
  try {
    await bucket.client.send(new DeleteObjectCommand(address(bucket, key)))
    return success(undefined)
  } catch (error) {
    return outcomeOf(bucket, `remove ${key} from`, error)
  }
}

/** What the server refuses for good is a failure; an unreachable or busy server is not. */
function outcomeOf(bucket: Bucket, doing: string, error: unknown): Outcome<never> {
  const mapped = bucketError(bucket, doing, error)
  const status = httpStatus(error)
  const final = status !== null && status >= 400 && status < 500 && ![408, 429].includes(status)
  return final ? failure(mapped) : retryable(mapped)
}

function httpStatus(error: unknown): number | null {
  if (typeof error !== 'object' || error === null || !('$metadata' in error)) return null
  const metadata = error.$metadata
  if (typeof metadata !== 'object' || metadata === null) return null
  return 'httpStatusCode' in metadata ? Number(metadata.httpStatusCode) : null
}

function errorName(error: unknown): string {
  return systemCode(error) ?? (error instanceof Error ? error.name : 'error')
}

function isMissing(error: unknown): boolean {
  return errorName(error) === 'NoSuchKey' || errorName(error) === 'NotFound'
}

/** A conditional write found the key taken. */
function isPresent(error: unknown): boolean {
  return httpStatus(error) === 412
}

const CREDENTIALS_ADVICE =
  'Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile they come from.'

const adviceByName: Readonly<Record<string, string>> = {
  SignatureDoesNotMatch: `The secret key is wrong. ${CREDENTIALS_ADVICE}`,
  InvalidAccessKeyId: `The access key is not known there. ${CREDENTIALS_ADVICE}`,
  CredentialsProviderError: `No credentials were found. ${CREDENTIALS_ADVICE}`,
  AccessDenied: 'Give the credentials permission to list, read, write and delete in the bucket.',
  NoSuchBucket: 'Create the bucket or mend its name in the store URL.',
  ECONNREFUSED: 'Check the endpoint of the store URL; files wait in the queue meanwhile.',
  ENOTFOUND: 'Check the endpoint of the store URL; files wait in the queue meanwhile.',
  TimeoutError: 'Check the network to the endpoint; files wait in the queue meanwhile.',
}

function bucketError(bucket: Bucket, doing: string, cause: unknown): Ring2Error {
  if (cause instanceof Ring2Error) return cause
  const name = errorName(cause)
  const status = httpStatus(cause)
  const http = status === null ? '' : `, HTTP ${status}`
  const advice = adviceByName[name] ?? (status === 403 ? adviceByName.AccessDenied : undefined)
  return new Ring2Error('RING2_E_STORE', {
    expected: `to ${doing} ${bucket.where}`,
    actual: `${name}${http} (${errorText(cause)})`,
    ...(advice === undefined ? {} : { action: advice }),
    cause,
  })
}
