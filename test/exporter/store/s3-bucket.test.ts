/** What answers of a bucket are called, without one. */
import { S3Client } from '@aws-sdk/client-s3'
import { expect, test } from 'vitest'
import { locateStore } from '../../../exporter/store/location.ts'
import { bucketError } from '../../../exporter/store/s3-bucket.ts'

function errorOf(name: string, httpStatusCode: number) {
  const { target } = locateStore('s3://bucket/prefix', '/state')
  if (target.kind !== 's3') throw new Error('no bucket')
  const client = new S3Client({ region: 'us-east-1' })
  const bucket = { client, target, where: 'bucket', conditional: true }
  const cause = Object.assign(new Error('UnknownError'), { name, $metadata: { httpStatusCode } })
  return bucketError(bucket, 'look into', cause)
}

test.each(['Unknown', 'UnknownError', '403'])(
  'a 403 without a code (%s) may be the key or the permissions, and says so',
  (name) => {
    const error = errorOf(name, 403)
    expect(error.actual).toMatch(/^Forbidden, HTTP 403/)
    expect(error.action).toContain('The key or its permissions may be wrong')
    expect(error.action).toContain('AWS_SECRET_ACCESS_KEY')
  },
)

test('a 403 that has a code, and another status without one, keep their names', () => {
  expect(errorOf('AccessDenied', 403).action).toContain('permission to list')
  expect(errorOf('Unknown', 400).actual).toMatch(/^Unknown, HTTP 400/)
})
