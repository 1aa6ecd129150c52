/**
 * How a bucket is reached and written: where credentials come from, encryption by the server, and
 * an upload whose process is killed in the middle of a part.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { flatName } from '../../../exporter/store/keys.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import {
  impatientUploader,
  listed,
  openBucketAt,
  rightCredentials,
  setEnvironment,
} from './buckets.ts'
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { accessKeyId, secretAccessKey, startWeed, type Weed } from './weed.ts'

vi.setConfig({ testTimeout: 120_000 })

let weed: Weed
let proxy: FaultProxy
let folder: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
  proxy = await startFaultProxy(weed.endpoint)
}, 90_000)

afterAll(async () => {
  await proxy.stop()
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

beforeEach(() => proxy.behave(() => null))

const key = 'tensors/model_slug=m/date=2026-01-01/hour=00/p-1.parquet'
const indexKey = `catalog/ab/${'ab'.padEnd(32, '0')}/p-1.json`

/** No credentials but those that a test gives: nothing of the machine's own is found. */
function noCredentials(): void {
  const nowhere = join(temporaryFolder(), 'none')
  setEnvironment({
    AWS_ACCESS_KEY_ID: undefined,
    AWS_SECRET_ACCESS_KEY: undefined,
    AWS_PROFILE: undefined,
    AWS_CONFIG_FILE: nowhere,
    AWS_SHARED_CREDENTIALS_FILE: nowhere,
    AWS_EC2_METADATA_DISABLED: 'true',
  })
}

test('the role of a container or instance gives credentials, again when they expire', async () => {
  noCredentials()
  let asked = 0
  const tokens: unknown[] = []
  const server = createServer((request, response) => {
    asked += 1
    tokens.push(request.headers.authorization)
    // The first ones are about to expire, so that the next request needs new ones.
    const lives = asked === 1 ? 10_000 : 3_600_000
    const Expiration = new Date(Date.now() + lives).toISOString()
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        AccessKeyId: accessKeyId,
        SecretAccessKey: secretAccessKey,
        Token: '',
        Expiration,
      }),
    )
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  setEnvironment({
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `http://127.0.0.1:${port}/role`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN: 'of-the-container',
  })
  const { bucket } = await openBucketAt(weed.storeUrl('role'))
  for (const text of ['one', 'two', 'three']) {
    const put = await bucket.putBytes(indexKey, new TextEncoder().encode(text))
    expect(put).toMatchObject({ status: 'success' })
  }
  expect(await bucket.size(indexKey)).toBe(5)
  expect(asked).toBe(2)
  expect(tokens).toEqual(['of-the-container', 'of-the-container'])
})

test('a profile gives credentials', async () => {
  noCredentials()
  const file = join(temporaryFolder(), 'credentials')
  writeFileSync(
    file,
    `[ring2]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
  )
  setEnvironment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_PROFILE: 'ring2' })
  const { bucket } = await openBucketAt(weed.storeUrl('profile'))
  expect(await listed(bucket, '')).toEqual([])
})

test('without any credentials the error says where they may come from', async () => {
  noCredentials()
  const { bucket } = await openBucketAt(weed.storeUrl('nobody'))
  await expect(listed(bucket, '')).rejects.toMatchObject({
    code: 'RING2_E_STORE',
    actual: expect.stringContaining('CredentialsProviderError'),
    action: expect.stringContaining('the profile or role'),
  })
})

test('objects are encrypted by the server where the URL says so', async () => {
  rightCredentials()
  const url = weed.storeUrl('encrypted')
  const { bucket } = await openBucketAt(`${url}&sse=AES256`)
  for (const bytes of [1000, 20 * 1024 * 1024]) {
    const path = join(temporaryFolder(), 'file')
    const content = Buffer.alloc(bytes, 'abc')
    writeFileSync(path, content)
    expect(await bucket.put(key, path)).toEqual({ status: 'success', value: 'stored' })
    expect(await weed.encryptionOf(`encrypted/${key}`)).toBe('AES256')
    expect(content.equals((await bucket.read(key, bytes)) ?? new Uint8Array(0))).toBe(true)
    await bucket.delete(key)
  }
  await bucket.putBytes(indexKey, new Uint8Array(5))
  expect(await weed.encryptionOf(`encrypted/${indexKey}`)).toBe('AES256')
  const plain = await openBucketAt(weed.storeUrl('plain'))
  await plain.bucket.putBytes(indexKey, new Uint8Array(5))
  expect(await weed.encryptionOf(`plain/${indexKey}`)).toBeUndefined()
})

test('a key of the key management service is asked for by its name', async () => {
  rightCredentials()
  const keyId = 'arn:aws:kms:eu-west-1:111122223333:key/abc'
  const query = new URLSearchParams({ sse: 'aws:kms', sse_kms_key_id: keyId })
  const { bucket } = await openBucketAt(`${weed.storeUrl('kms', proxy.endpoint)}&${query}`)
  const large = join(temporaryFolder(), 'file')
  writeFileSync(large, Buffer.alloc(20 * 1024 * 1024))
  // The server has no such service, and says so.
  expect((await bucket.putBytes(indexKey, new Uint8Array(5))).status).toBe('retryable')
  await bucket.put(key, large)
  const wanted = {
    'x-amz-server-side-encryption': 'aws:kms',
    'x-amz-server-side-encryption-aws-kms-key-id': keyId,
  }
  const writes = proxy
    .asked()
    .filter(({ method, url }) => method === 'PUT' && !url.includes('partNumber'))
  const begins = proxy
    .asked()
    .filter(({ method, url }) => method === 'POST' && url.includes('uploads'))
  expect(writes.length).toBeGreaterThan(0)
  expect(begins.length).toBeGreaterThan(0)
  for (const { headers } of [...writes, ...begins]) expect(headers).toMatchObject(wanted)
})

function startChild(url: string, state: string): ChildProcess {
  const program = join(import.meta.dirname, 'uploader.child.ts')
  const child = spawn(process.execPath, [program, url, state], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

test('an upload whose process is killed in the middle of a part goes on after the next start', async () => {
  rightCredentials()
  const opened = await openBucketAt(weed.storeUrl('killed', proxy.endpoint))
  const { queue } = opened.location
  mkdirSync(queue, { recursive: true })
  const content = Buffer.alloc(150 * 1024 * 1024, 'some bytes of a tensor')
  writeFileSync(join(queue, flatName(key)), content)
  // Both processes have the same state, as one exporter has before and after its death.
  const { url } = opened
  const state = dirname(queue)
  const parts = () => proxy.asked().filter(({ url: one }) => one.includes('partNumber'))
  for (let kill = 1; kill <= 3; kill++) {
    const sent = parts().length
    const child = startChild(url, state)
    const ended = once(child, 'exit')
    await expect
      .poll(() => parts().length, { interval: 1, timeout: 60_000 })
      .toBeGreaterThan(sent + 1)
    child.kill('SIGKILL')
    expect(await ended).toEqual([null, 'SIGKILL'])
    expect(await listed(opened.bucket, '')).toEqual([])
    expect(readdirSync(queue)).toEqual([flatName(key)])
  }
  expect(await weed.unfinishedUploads()).toContain(`killed/${key}`)
  const { uploader, errors } = impatientUploader(opened)
  expect(await uploader.flush(60_000)).toBe(0)
  expect(errors).toEqual([])
  expect(content.equals((await opened.bucket.read(key, content.length)) ?? new Uint8Array(0))).toBe(
    true,
  )
  expect(await weed.unfinishedUploads()).not.toContain(`killed/${key}`)
  expect(readdirSync(queue)).toEqual([])
})
