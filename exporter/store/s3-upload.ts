/**
 * Stores one local file in a bucket: in one request, or in parts that survive a crash.
 *
 * Every request carries the CRC-32 of its bytes, which the server checks; afterwards the server is
 * asked for size and checksum, so success means that the whole object is there. An upload that was
 * cut off (a crash, a server that went away) is found again by its key and goes on after the parts
 * that the server has; only parts whose checksum is that of the file's bytes are kept.
 *
 * Memory: `partsInFlight` buffers of `partBytes`, whatever the size of the file.
 */

import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type Part,
  PutObjectCommand,
  paginateListParts,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import type { Outcome } from '../../collector/records.ts'
import { failure, Ring2Error, retryable, storeError, success, systemCode } from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import { objectDiffers, type PutOptions, type PutResult } from './object-store.ts'
import {
  address,
  type Bucket,
  encryption,
  ifNoneThere,
  isMissing,
  isPresent,
  outcomeOf,
} from './s3-bucket.ts'
import { httpStatus } from './upload-failure.ts'

const CONTENT_TYPE = 'application/vnd.apache.parquet'

/** One file on its way. */
interface Transfer {
  readonly key: string
  readonly handle: FileHandle
  readonly bytes: number
  /** Of every request. */
  readonly http: { readonly abortSignal?: AbortSignal }
}

/** An upload in parts that the server has begun, and the parts it holds. */
interface Begun {
  readonly id: string
  readonly parts: ReadonlyMap<number, Part>
}

/** `success` once the bucket has confirmed size and checksum of the object. */
export async function uploadFile(
  bucket: Bucket,
  key: string,
  path: string,
  { signal }: PutOptions = {},
): Promise<Outcome<PutResult>> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (error) {
    return failure(storeError('read', path, error))
  }
  try {
    const http = signal === undefined ? {} : { abortSignal: signal }
    const file = { key, handle, bytes: (await handle.stat()).size, http }
    return file.bytes <= uploadLimits.partBytes
      ? await putWhole(bucket, file)
      : await putParts(bucket, file)
  } catch (error) {
    // A file that cannot be read is tried again and holds up no other.
    if (error instanceof Ring2Error) return failure(error)
    if (systemCode(error) !== null && httpStatus(error) === null && isLocal(error)) {
      return failure(storeError('read', path, error))
    }
    return outcomeOf(bucket, `upload ${key} to`, error)
  } finally {
    await handle.close()
  }
}

/** An error of a file and not of a connection. */
function isLocal(error: unknown): boolean {
  const call = error instanceof Error && 'syscall' in error ? error.syscall : null
  return call === 'read' || call === 'fstat'
}

async function putWhole(bucket: Bucket, file: Transfer): Promise<Outcome<PutResult>> {
  const body = await readPart(file, Buffer.allocUnsafe(file.bytes), 0)
  const checksum = crcText(crc32(body))
  try {
    await ifNoneThere(bucket, (condition) =>
      bucket.client.send(
        new PutObjectCommand({
          ...address(bucket, file.key),
          ...encryption(bucket),
          ...condition,
          Body: body,
          ChecksumCRC32: checksum,
          ContentType: CONTENT_TYPE,
        }),
        file.http,
      ),
    )
  } catch (error) {
    if (!isPresent(error)) throw error
    return confirm(bucket, file, checksum, 'present')
  }
  return confirm(bucket, file, checksum, 'stored')
}

async function putParts(bucket: Bucket, file: Transfer): Promise<Outcome<PutResult>> {
  // A crash may have come after the object was complete and before its file was removed.
  const there = await look(bucket, file)
  if (there !== null) return confirm(bucket, file, null, 'present')
  const begun = (await findBegun(bucket, file)) ?? (await begin(bucket, file))
  const parts = await sendParts(bucket, file, begun)
  const outcome = await complete(bucket, file, begun, parts)
  return confirm(bucket, file, compositeOf(parts), outcome)
}

async function begin(bucket: Bucket, file: Transfer): Promise<Begun> {
  const answer = await bucket.client.send(
    new CreateMultipartUploadCommand({
      ...address(bucket, file.key),
      ...encryption(bucket),
      ChecksumAlgorithm: 'CRC32',
      ContentType: CONTENT_TYPE,
    }),
    file.http,
  )
  return { id: answer.UploadId ?? '', parts: new Map() }
}

/** What an earlier attempt left; all but the newest are given up. */
async function findBegun(bucket: Bucket, file: Transfer): Promise<Begun | null> {
  const { Bucket: name, Key: full } = address(bucket, file.key)
  try {
    const answer = await bucket.client.send(
      new ListMultipartUploadsCommand({ Bucket: name, Prefix: full }),
      file.http,
    )
    const own = (answer.Uploads ?? []).filter((upload) => upload.Key === full)
    own.sort((left, right) => Number(right.Initiated ?? 0) - Number(left.Initiated ?? 0))
    const [newest, ...older] = own.flatMap(({ UploadId }) => UploadId ?? [])
    for (const id of older) await abort(bucket, file, id)
    return newest === undefined
      ? null
      : { id: newest, parts: await listParts(bucket, file, newest) }
  } catch (error) {
    const status = httpStatus(error)
    // Not allowed or not known there: to send all parts anew works as well.
    if (status !== null && (status < 500 || status === 501)) return null
    throw error
  }
}

async function listParts(bucket: Bucket, file: Transfer, id: string): Promise<Map<number, Part>> {
  const parts = new Map<number, Part>()
  const pages = paginateListParts(
    { client: bucket.client },
    { ...address(bucket, file.key), UploadId: id },
    file.http,
  )
  for await (const page of pages) {
    for (const part of page.Parts ?? []) parts.set(part.PartNumber ?? 0, part)
  }
  return parts
}

async function sendParts(
  bucket: Bucket,
  file: Transfer,
  begun: Begun,
): Promise<readonly CompletedPart[]> {
  const count = Math.ceil(file.bytes / uploadLimits.partBytes)
  const parts: CompletedPart[] = []
  let next = 0
  let failed = false

  async function sendNext(): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(uploadLimits.partBytes)
    while (next < count && !failed) {
      const index = next++
      try {
        const body = await readPart(file, buffer, index * uploadLimits.partBytes)
        parts[index] = await sendPart(bucket, file, begun, index + 1, body)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }

  const senders = Array.from({ length: Math.min(count, uploadLimits.partsInFlight) }, sendNext)
  // All of them, so that none still reads the file when it is closed.
  for (const sent of await Promise.allSettled(senders)) {
    if (sent.status === 'rejected') throw sent.reason
  }
  return parts
}

async function sendPart(
  bucket: Bucket,
  file: Transfer,
  begun: Begun,
  number: number,
  body: Buffer,
): Promise<CompletedPart> {
  const checksum = crcText(crc32(body))
  const held = begun.parts.get(number)
  if (held?.ETag !== undefined && isSame(held, body, checksum)) {
    return { PartNumber: number, ETag: held.ETag, ChecksumCRC32: checksum }
  }
  const answer = await bucket.client.send(
    new UploadPartCommand({
      ...address(bucket, file.key),
      UploadId: begun.id,
      PartNumber: number,
      Body: body,
      ChecksumCRC32: checksum,
    }),
    file.http,
  )
  return { PartNumber: number, ETag: answer.ETag ?? '', ChecksumCRC32: checksum }
}

/** By the checksum, or by the MD5 that an ETag is where the server tells no checksum. */
function isSame(held: Part, body: Buffer, checksum: string): boolean {
  if (held.Size !== body.length) return false
  if (held.ChecksumCRC32 !== undefined) return held.ChecksumCRC32 === checksum
  return held.ETag?.replaceAll('"', '') === createHash('md5').update(body).digest('hex')
}

async function complete(
  bucket: Bucket,
  file: Transfer,
  begun: Begun,
  parts: readonly CompletedPart[],
): Promise<PutResult> {
  try {
    await ifNoneThere(bucket, (condition) =>
      bucket.client.send(
        new CompleteMultipartUploadCommand({
          ...address(bucket, file.key),
          ...condition,
          UploadId: begun.id,
          MultipartUpload: { Parts: [...parts] },
        }),
        file.http,
      ),
    )
    return 'stored'
  } catch (error) {
    const status = httpStatus(error)
    // Parts that the server does not take, or does not need, would only be paid for.
    if (status === 400 || status === 412) await abort(bucket, file, begun.id)
    if (isPresent(error)) return 'present'
    throw error
  }
}

async function abort(bucket: Bucket, file: Transfer, id: string): Promise<void> {
  try {
    await bucket.client.send(
      new AbortMultipartUploadCommand({ ...address(bucket, file.key), UploadId: id }),
      file.http,
    )
  } catch {
    // Another attempt finds it by its key, and a rule of the bucket removes what nobody finds.
  }
}

interface Held {
  readonly bytes: number | null
  readonly checksum: string | null
}

async function look(bucket: Bucket, file: Transfer): Promise<Held | null> {
  try {
    const answer = await bucket.client.send(
      new HeadObjectCommand({ ...address(bucket, file.key), ChecksumMode: 'ENABLED' }),
      file.http,
    )
    return { bytes: answer.ContentLength ?? null, checksum: answer.ChecksumCRC32 ?? null }
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

/** @param checksum of the object as it was sent; null where it was not sent now. */
async function confirm(
  bucket: Bucket,
  file: Transfer,
  checksum: string | null,
  result: PutResult,
): Promise<Outcome<PutResult>> {
  const held = await look(bucket, file)
  if (held === null) {
    return retryable(
      storeError('upload', file.key, `${bucket.where} does not have it after it was stored`),
    )
  }
  const sameBytes = held.bytes === file.bytes
  if (sameBytes && sameChecksum(held.checksum, checksum)) return success(result)
  const sum = sameBytes ? `with the checksum ${held.checksum}, not ${checksum}` : ''
  return failure(objectDiffers(file.key, file.bytes, held.bytes, sum))
}

/** Checksums of parts cannot be compared where the parts were others; then the size has to do. */
function sameChecksum(held: string | null, sent: string | null): boolean {
  if (held === null || sent === null) return true
  if (held.split('-')[1] !== sent.split('-')[1]) return true
  return held === sent
}

/** The checksum that S3 gives an object of parts: that of the parts' checksums, and their count. */
function compositeOf(parts: readonly CompletedPart[]): string {
  const sums = parts.map((part) => Buffer.from(part.ChecksumCRC32 ?? '', 'base64'))
  return `${crcText(crc32(Buffer.concat(sums)))}-${parts.length}`
}

function crcText(value: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes.toString('base64')
}

/** The bytes of one part; throws when the file is shorter than it was. */
async function readPart(file: Transfer, buffer: Buffer, start: number): Promise<Buffer> {
  const length = Math.min(buffer.length, file.bytes - start)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.handle.read(buffer, filled, length - filled, start + filled)
    if (bytesRead === 0) {
      const actual = `it ends at ${start + filled} of ${file.bytes} bytes`
      throw storeError('read the whole of', file.key, actual)
    }
    filled += bytesRead
  }
  return buffer.subarray(0, length)
}
