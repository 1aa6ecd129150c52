import { join } from 'node:path'
import { expect, test } from 'vitest'
import { locateStore } from '../../../exporter/store/location.ts'

test('a path and a file URL name a directory that keeps its own state', () => {
  const expected = {
    target: { kind: 'directory', root: '/data/store' },
    spool: '/data/store/.ring2/spool',
    queue: '/data/store/.ring2/queue',
    catalog: '/data/store/.ring2/catalog.sqlite',
  }
  expect(locateStore('/data/store', null)).toEqual(expected)
  expect(locateStore('file:///data/store', '/ignored')).toEqual(expected)
  const relative = locateStore('store', null).target
  expect(relative).toEqual({ kind: 'directory', root: join(process.cwd(), 'store') })
})

test('a bucket URL names bucket, prefix, endpoint, region and style', () => {
  const url = 's3://my-bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-west-1&path_style=true'
  expect(locateStore(url, '/state')).toEqual({
    target: {
      kind: 's3',
      bucket: 'my-bucket',
      prefix: 'a/b',
      endpoint: 'http://127.0.0.1:9000',
      region: 'eu-west-1',
      pathStyle: true,
      encryption: null,
    },
    spool: '/state/spool',
    queue: '/state/queue',
    catalog: '/state/catalog.sqlite',
  })
  const plain = locateStore('s3://my-bucket?region=us-west-2', '/state').target
  expect(plain).toMatchObject({ prefix: '', endpoint: null, pathStyle: false })
})

test('a bucket URL says how the server encrypts', () => {
  const encryptionOf = (query: string) => {
    const { target } = locateStore(`s3://my-bucket?${query}`, '/state')
    return target.kind === 's3' ? target.encryption : null
  }
  expect(encryptionOf('sse=AES256')).toEqual({ algorithm: 'AES256', kmsKeyId: null })
  expect(encryptionOf('sse=aws:kms')).toEqual({ algorithm: 'aws:kms', kmsKeyId: null })
  expect(encryptionOf('sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu-west-1:1:key/2')).toEqual({
    algorithm: 'aws:kms',
    kmsKeyId: 'arn:aws:kms:eu-west-1:1:key/2',
  })
})

test('a URL that names no store is refused with what it should be', () => {
  for (const url of [
    '',
    'http://example.org/store',
    'gs://bucket',
    's3://',
    's3://Upper_Case',
    's3://user:secret@bucket',
    's3://bucket/../other',
    's3://bucket/a%2F..%2Fb',
    's3://bucket/a*b',
    's3://bucket?endpint=http://x',
    's3://bucket?endpoint=127.0.0.1:9000',
    's3://bucket?path_style=maybe',
    's3://bucket?sse=aes',
    's3://bucket?sse=AES256&sse_kms_key_id=key',
    'file://host/share',
  ]) {
    expect(() => locateStore(url, '/state'), url).toThrow(/RING2_E_CONFIG/)
  }
  expect(() => locateStore('s3://bucket', null)).toThrow(/state directory/)
  for (const url of ['s3://user:secret@bucket', 's3://user:secret@B_', 's3://u:secret@b/../c']) {
    expect(() => locateStore(url, '/state')).toThrow(/…@/)
    expect(() => locateStore(url, '/state')).not.toThrow(/secret/)
  }
})
