/**
 * The store in an S3-compatible bucket, by the AWS SDK. Credentials come from the SDK's default
 * chain (environment, profile, container or instance role). Only the files s3*.ts know the SDK.
 */

import { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import type { Outcome } from '../../collector/records.ts'
import { success } from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import type { BucketTarget } from './location.ts'
import {
  assertObjectKey,
  isObjectKey,
  type ListOptions,
  type ObjectStore,
  objectMissing,
  objectTooLarge,
  type PutResult,
  type StoredObject,
} from './object-store.ts'
import {
  address,
  type Bucket,
  bucketError,
  encryption,
  ifNoneThere,
  isMissing,
  isPresent,
  outcomeOf,
} from './s3-bucket.ts'
import { uploadFile } from './s3-upload.ts'

export interface BucketOptions {
  /** How long a connection may stand still, in milliseconds. */
  readonly idleMillisMax?: number
}

export function createBucketStore(target: BucketTarget, options: BucketOptions = {}): ObjectStore {
  const client = new S3Client({
    region: target.region,
    forcePathStyle: target.pathStyle,
    ...(target.endpoint === null ? {} : { endpoint: target.endpoint }),
    requestHandler: {
      connectionTimeout: uploadLimits.connectMillisMax,
      socketTimeout: options.idleMillisMax ?? uploadLimits.idleMillisMax,
      requestTimeout: uploadLimits.requestMillisMax,
      // Otherwise it is only said on standard error.
      throwOnRequestTimeout: true,
    },
  })
  const where = `s3://${target.bucket} at ${target.endpoint ?? `AWS ${target.region}`}`
  const bucket: Bucket = { client, target, where, conditional: true }
  return {
    put: (key, path, options) => uploadFile(bucket, assertObjectKey(key), path, options),
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

async function putBytes(
  bucket: Bucket,
  key: string,
  bytes: Uint8Array,
  ifAbsent: boolean,
): Promise<Outcome<PutResult>> {
  const put = (condition: { readonly IfNoneMatch?: string }) =>
    bucket.client.send(
      new PutObjectCommand({
        ...address(bucket, key),
        ...encryption(bucket),
        ...condition,
        Body: bytes,
        ContentType: 'application/json',
      }),
    )
  try {
    await (ifAbsent ? ifNoneThere(bucket, put) : put({}))
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
