import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import type { ObjectStore, StoredObject } from '../../../exporter/store/object-store.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

async function listed(store: ObjectStore, prefix: string): Promise<StoredObject[]> {
  const objects: StoredObject[] = []
  for await (const object of store.list(prefix)) objects.push(object)
  return objects
}

const key = 'tensors/model=m/date=2026-01-01/hour=00/p-1.parquet'

test('an object is put whole, read by ranges, listed and removed', async () => {
  const root = temporaryFolder()
  const store = createDirectoryStore(root)
  const source = join(temporaryFolder(), 'file')
  writeFileSync(source, 'abcdefgh')
  expect(await store.size(key)).toBeNull()
  expect(await store.put(key, source)).toMatchObject({ status: 'success' })
  expect(await store.size(key)).toBe(8)
  expect(Buffer.from(await store.getRange(key, 2, 3)).toString()).toBe('cde')
  expect(Buffer.from(await store.getRange(key, 6, 10)).toString()).toBe('gh')
  symlinkSync('/nowhere', join(root, 'tensors', 'broken'))
  mkdirSync(join(root, 'tensors', 'other'))
  writeFileSync(join(root, 'tensors', 'other', 'x.parquet'), '')
  const objects = await listed(store, 'tensors/')
  expect(objects).toEqual([{ key, bytes: 8 }])
  expect(await listed(store, 'requests/')).toEqual([])
  expect(await store.delete(key)).toMatchObject({ status: 'success' })
  expect(await store.delete(key)).toMatchObject({ status: 'success' })
  await expect(store.getRange(key, 0, 1)).rejects.toMatchObject({ code: 'RING2_E_STORE' })
})

test('a key that leaves the store is refused before anything is touched', () => {
  const store = createDirectoryStore(temporaryFolder())
  for (const bad of ['../etc/passwd', '/etc/passwd', `${key}/../x`, 'tensors/*.parquet', '']) {
    expect(() => store.size(bad), bad).toThrow(/RING2_E_STORE/)
    expect(() => store.getRange(bad, 0, 1), bad).toThrow(/RING2_E_STORE/)
    expect(() => store.put(bad, '/etc/hostname'), bad).toThrow(/RING2_E_STORE/)
    expect(() => store.delete(bad), bad).toThrow(/RING2_E_STORE/)
  }
})

test('a put that the disk refuses leaves nothing behind', async () => {
  const root = temporaryFolder()
  writeFileSync(join(root, 'tensors'), 'a file where a folder should be')
  const store = createDirectoryStore(root)
  const outcome = await store.put(key, '/etc/hostname')
  expect(outcome.status).toBe('retryable')
  expect(outcome.status === 'retryable' && outcome.error.message).toMatch(/ENOTDIR|EEXIST/)
})

test('links are not followed when the store is listed, and none is taken for a file', async () => {
  const root = temporaryFolder()
  const store = createDirectoryStore(root)
  const elsewhere = temporaryFolder()
  writeFileSync(join(elsewhere, 'kept'), 'content')
  const folder = dirname(join(root, key))
  mkdirSync(folder, { recursive: true })
  symlinkSync(root, join(folder, 'round'))
  symlinkSync(join(elsewhere, 'kept'), join(root, key))
  expect(await listed(store, 'tensors/')).toEqual([])
  const outcome = await store.delete(key)
  expect(outcome.status === 'failure' && outcome.error.message).toMatch(/RING2_E_STORE.*symbolic/)
  expect(await store.size(key)).toBe(7)
  rmSync(join(elsewhere, 'kept'))
  expect((await store.delete(key)).status).toBe('success')
  expect(existsSync(join(root, key))).toBe(false)
})

test('a folder of files may itself lie elsewhere', async () => {
  const root = temporaryFolder()
  const elsewhere = temporaryFolder()
  symlinkSync(elsewhere, join(root, 'tensors'))
  const store = createDirectoryStore(root)
  const source = join(temporaryFolder(), 'file')
  writeFileSync(source, 'abc')
  expect((await store.put(key, source)).status).toBe('success')
  expect(await listed(store, 'tensors/')).toEqual([{ key, bytes: 3 }])
})
