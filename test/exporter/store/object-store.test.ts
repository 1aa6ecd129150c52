/**
 * What every kind of store keeps to: a directory, and a bucket on a real server.
 */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { listed, openBucketAt, rightCredentials } from './buckets.ts'
import { startWeed, type Weed } from './weed.ts'

// A busy machine may take its time; nothing here asserts how long anything takes.
vi.setConfig({ testTimeout: 90_000 })

let weed: Weed
let folder: string
let prefixes = 0

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
}, 90_000)

afterAll(async () => {
  await weed.stop()
  rmSync(folder, { recursive: true, force: true })
})

beforeEach(rightCredentials)

async function openQueuedBucket(): Promise<ObjectStore> {
  prefixes += 1
  return (await openBucketAt(weed.storeUrl(`conformance/${prefixes}`))).store
}

const kinds: readonly [string, () => Promise<ObjectStore>][] = [
  ['a directory', async () => createDirectoryStore(temporaryFolder())],
  ['a bucket', openQueuedBucket],
]

const key = 'tensors/model_slug=m/date=2026-01-01/hour=00/p-1.parquet'
const traceFolder = `catalog/ab/${'ab'.padEnd(32, '0')}`
const indexKey = (name: string) => `${traceFolder}/${name}.json`
const bytesOf = (text: string) => new TextEncoder().encode(text)

function fileWith(text: string): string {
  const path = join(temporaryFolder(), 'file')
  writeFileSync(path, text)
  return path
}

describe.each(kinds)('in %s', (_, open) => {
  test('a small object is written, replaced, kept when it is there, and read whole', async () => {
    const store = await open()
    const one = indexKey('producer-1')
    expect(await store.read(one, 100)).toBeNull()
    const put = (text: string, ifAbsent?: boolean) =>
      store.putBytes(one, bytesOf(text), ifAbsent === undefined ? {} : { ifAbsent })
    expect(await put('first', true)).toEqual({ status: 'success', value: 'stored' })
    expect(await put('second', true)).toEqual({ status: 'success', value: 'present' })
    expect(await store.read(one, 100)).toEqual(bytesOf('first'))
    expect(await put('third')).toEqual({ status: 'success', value: 'stored' })
    expect(await store.read(one, 5)).toEqual(bytesOf('third'))
    await expect(store.read(one, 4)).rejects.toMatchObject({
      code: 'RING2_E_STORE',
      expected: expect.stringContaining('at most 4 bytes'),
      actual: '5 bytes',
    })
    expect(await store.size(one)).toBe(5)
    expect(await put('')).toMatchObject({ status: 'success' })
    expect(await store.read(one, 0)).toEqual(new Uint8Array(0))
    expect(await store.delete(one)).toMatchObject({ status: 'success' })
    expect(await store.read(one, 100)).toBeNull()
  })

  test('a list is limited, and holds files and small objects but nothing else', async () => {
    const store = await open()
    for (const name of ['a', 'b', 'c']) await store.putBytes(indexKey(name), bytesOf(name))
    await store.put(key, fileWith('whole'))
    expect(await listed(store, `${traceFolder}/`)).toEqual(
      ['a', 'b', 'c'].map((name) => ({ key: indexKey(name), bytes: 1 })),
    )
    expect(await listed(store, `${traceFolder}/`, 2)).toHaveLength(2)
    expect(await listed(store, `${traceFolder}/`, 3)).toHaveLength(3)
    expect(await listed(store, '', 0)).toEqual([])
    expect(await listed(store, '')).toHaveLength(4)
    expect(await listed(store, 'catalog/cd/')).toEqual([])
  })

  test('a file that is delivered again is stored once, and another is never overwritten', async () => {
    const store = await open()
    expect(await store.put(key, fileWith('abcd'))).toEqual({ status: 'success', value: 'stored' })
    expect(await store.put(key, fileWith('abcd'))).toEqual({ status: 'success', value: 'present' })
    const other = await store.put(key, fileWith('another'))
    expect(other.status).toBe('failure')
    expect(other.status === 'failure' && other.error).toMatchObject({
      code: 'RING2_E_STORE',
      expected: expect.stringContaining('the same 7 bytes'),
      actual: 'an object of 4 bytes',
    })
    expect(await store.read(key, 10)).toEqual(bytesOf('abcd'))
    expect(await listed(store, 'tensors/')).toEqual([{ key, bytes: 4 }])
  })

  test('of several who write one absent object at once, one has written it', async () => {
    const store = await open()
    const one = indexKey('raced')
    const outcomes = await Promise.all(
      ['1', '2', '3', '4'].map((text) => store.putBytes(one, bytesOf(text), { ifAbsent: true })),
    )
    const values = outcomes.map((outcome) => (outcome.status === 'success' ? outcome.value : ''))
    expect(values.filter((value) => value === 'stored')).toHaveLength(1)
    expect(values.filter((value) => value === 'present')).toHaveLength(3)
    const winner = String(values.indexOf('stored') + 1)
    expect(await store.read(one, 1)).toEqual(bytesOf(winner))
  })

  test('a key that is none is refused before anything is touched', async () => {
    const store = await open()
    const bad = [
      'catalog/ab/x.json',
      `${traceFolder}/../../x.json`,
      `${traceFolder}/*.json`,
      `${traceFolder}/x.json/y`,
      'anything.json',
    ]
    for (const name of bad) {
      const put = async () => store.putBytes(name, bytesOf('x'))
      await expect(put(), name).rejects.toThrow(/RING2_E_STORE/)
      const read = async () => store.read(name, 1)
      await expect(read(), name).rejects.toThrow(/RING2_E_STORE/)
    }
    expect(await listed(store, '')).toEqual([])
  })
})

test('a directory keeps no partial file of an object that was there, or could not be written', async () => {
  const root = temporaryFolder()
  const store = createDirectoryStore(root)
  await store.putBytes(indexKey('one'), bytesOf('1'))
  await store.putBytes(indexKey('one'), bytesOf('2'), { ifAbsent: true })
  expect(await store.put(key, join(root, 'missing'))).toMatchObject({ status: 'retryable' })
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
  expect(files.filter((entry) => entry.isFile()).map((entry) => entry.name)).toEqual(['one.json'])
})
