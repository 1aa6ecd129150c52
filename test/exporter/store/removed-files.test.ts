/** Files of the queue that are removed while they are uploaded leave nothing in the bucket. */
import { readdirSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { createQueuedStore } from '../../../exporter/store/queued.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'
import { openExporter } from '../catalog/bucket-fixture.ts'
import { row } from '../tensors/rows.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

function openBucket() {
  const root = temporaryFolder()
  const bucket = createDirectoryStore(root)
  const exporter = openExporter(bucket, temporaryFolder())
  exporter.flush([row()])
  const files = () =>
    readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const uploaderOf = (through: ObjectStore) =>
    createUploader({
      queue: exporter.location.queue,
      bucket: through,
      onError: (error) => expect(error).toBeNull(),
    })
  return { ...exporter, bucket, files, uploaderOf, key: exporter.catalog.files()[0]?.key ?? '' }
}

test('a file that is removed while it is uploaded is removed from the bucket, too', async () => {
  const { bucket, store, location, files, uploaderOf, key } = openBucket()
  const entered = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const slow: ObjectStore = {
    ...bucket,
    put: async (name, path, options) => {
      const outcome = await bucket.put(name, path, options)
      entered.resolve()
      await goOn.promise
      // As a server that has all bytes only now.
      return outcome
    },
  }
  const uploader = uploaderOf(slow)
  const flushed = uploader.flush(10_000)
  await entered.promise
  const kept = { ...bucket, delete: async () => ({ status: 'success', value: undefined }) as const }
  const beforeItIsThere = createQueuedStore(kept, location.queue)
  expect((await beforeItIsThere.delete(key)).status).toBe('success')
  goOn.resolve()
  expect(await flushed).toBe(0)
  await uploader.stop()
  expect(files()).toEqual([])
  expect(readdirSync(location.queue)).toEqual([])
  expect(await store.size(key)).toBeNull()
})

test('what a killed uploader had sent is removed by the next one', async () => {
  const { bucket, store, location, files, uploaderOf, key } = openBucket()
  const path = join(location.queue, readdirSync(location.queue)[0] ?? '')
  expect((await bucket.put(key, path)).status).toBe('success')
  const removing = createQueuedStore(
    { ...bucket, delete: async () => ({ status: 'success', value: undefined }) as const },
    location.queue,
  )
  expect((await removing.delete(key)).status).toBe('success')
  expect(await store.size(key)).not.toBeNull()
  const first = uploaderOf(bucket)
  await first.flush(10_000)
  await first.stop()
  // Another process may still upload it.
  expect(files()).toHaveLength(1)
  const before = new Date(Date.now() - 3_600_000)
  utimesSync(join(location.queue, readdirSync(location.queue)[0] ?? ''), before, before)
  const next = uploaderOf(bucket)
  await next.flush(10_000)
  await next.stop()
  expect(files()).toEqual([])
  expect(readdirSync(location.queue)).toEqual([])
})
