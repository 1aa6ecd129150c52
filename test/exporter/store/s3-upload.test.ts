/** What an upload believes of a server that lies, or has parts of something else. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { S3Client } from '@aws-sdk/client-s3'
import { expect, test } from 'vitest'
import type { Bucket } from '../../../exporter/store/s3-bucket.ts'
import { uploadFile } from '../../../exporter/store/s3-upload.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const MIB = 1024 * 1024
const key = 'tensors/model_slug=m/date=2026-01-01/hour=00/p-1.parquet'
const target: Bucket['target'] = {
  kind: 's3',
  bucket: 'b',
  prefix: '',
  endpoint: null,
  region: 'r',
  pathStyle: true,
  encryption: null,
}

type Answers = Readonly<Record<string, (input: Record<string, unknown>) => unknown>>

/** A bucket whose server answers each command as the test says. */
function fakeBucket(answers: Answers) {
  const asked: string[] = []
  const client = new S3Client({ region: 'r' })
  const send = async (command: { constructor: { name: string }; input: object }) => {
    const name = command.constructor.name.replace('Command', '')
    const input = { ...command.input } as Record<string, unknown>
    asked.push(input.PartNumber === undefined ? name : `${name} ${input.PartNumber}`)
    return answers[name]?.(input) ?? {}
  }
  const bucket: Bucket = {
    client: Object.assign(client, { send }),
    target,
    where: 'the bucket of the test',
    conditional: true,
  }
  return { bucket, asked }
}

function fileOf(bytes: number): string {
  const path = join(temporaryFolder(), 'file')
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

test('an object of the right size and another checksum is not taken for stored', async () => {
  const right = fakeBucket({
    PutObject: () => ({}),
    HeadObject: () => ({ ContentLength: 1000 }),
  })
  const path = fileOf(1000)
  expect((await uploadFile(right.bucket, key, path)).status).toBe('success')
  const wrong = fakeBucket({
    HeadObject: () => ({ ContentLength: 1000, ChecksumCRC32: 'AAAAAA==' }),
  })
  const outcome = await uploadFile(wrong.bucket, key, path)
  expect(outcome.status === 'failure' && outcome.error.message).toMatch(/checksum AAAAAA==/)
})

test('a part that the server holds is sent again unless its checksum is that of the file', async () => {
  const bytes = 17 * MIB
  const path = fileOf(bytes)
  let looks = 0
  const sums = new Map<number, string>()
  const answers = (held: readonly object[]): Answers => ({
    HeadObject() {
      looks += 1
      if (looks % 2 === 0) return { ContentLength: bytes }
      throw Object.assign(new Error('not there'), {
        name: 'NotFound',
        $metadata: { httpStatusCode: 404 },
      })
    },
    ListMultipartUploads: () => ({ Uploads: [{ Key: key, UploadId: 'u' }] }),
    ListParts: () => ({ Parts: held, IsTruncated: false }),
    UploadPart(input) {
      sums.set(Number(input.PartNumber), String(input.ChecksumCRC32))
      return { ETag: '"sent"' }
    },
  })
  const partOf = (PartNumber: number, Size: number, ChecksumCRC32: string | undefined) => {
    return { PartNumber, Size, ETag: '"held"', ChecksumCRC32 }
  }
  const sent = async (held: readonly object[]) => {
    const { bucket, asked } = fakeBucket(answers(held))
    expect((await uploadFile(bucket, key, path)).status).toBe('success')
    return asked.filter((name) => name.startsWith('UploadPart')).sort()
  }
  expect(await sent([])).toEqual(['UploadPart 1', 'UploadPart 2'])
  const whole = partOf(1, 16 * MIB, sums.get(1))
  expect(await sent([whole, partOf(2, MIB, sums.get(2))])).toEqual([])
  expect(await sent([whole, partOf(2, MIB, 'AAAAAA==')])).toEqual(['UploadPart 2'])
  expect(await sent([whole, partOf(2, MIB - 1, sums.get(2))])).toEqual(['UploadPart 2'])
  expect(await sent([whole, partOf(2, MIB, undefined)])).toEqual(['UploadPart 2'])
})

test('a file that cannot be read concerns that file alone', async () => {
  const { bucket, asked } = fakeBucket({})
  const path = join(temporaryFolder(), 'folder')
  mkdirSync(path)
  const outcome = await uploadFile(bucket, key, path)
  expect(outcome.status === 'failure' && outcome.error.message).toMatch(/RING2_E_STORE.*EISDIR/)
  expect(asked).toEqual([])
})
