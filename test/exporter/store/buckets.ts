/**
 * What tests of buckets share: the credentials of the real server in the environment, and stores
 * that are closed when their test ends.
 */

import { onTestFinished } from 'vitest'
import type { Ring2Error } from '../../../exporter/errors.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import type { ObjectStore, StoredObject } from '../../../exporter/store/object-store.ts'
import { openStore } from '../../../exporter/store/open-store.ts'
import { createUploader, type UploaderOptions } from '../../../exporter/store/uploader.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { accessKeyId, secretAccessKey } from './weed.ts'

/** Sets variables of the environment until the test ends; undefined unsets one. */
export function setEnvironment(values: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name]
    set(name, value)
    onTestFinished(() => set(name, before))
  }
}

function set(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}

export function rightCredentials(): void {
  setEnvironment({ AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey })
}

export async function openBucketAt(url: string) {
  const location = locateStore(url, temporaryFolder())
  const { store, bucket } = await openStore(location)
  if (bucket === null) throw new Error('not a bucket')
  onTestFinished(() => store.close())
  return { url, location, store, bucket }
}

export type OpenedBucket = Awaited<ReturnType<typeof openBucketAt>>

export async function listed(
  store: ObjectStore,
  prefix: string,
  limit?: number,
): Promise<StoredObject[]> {
  const objects: StoredObject[] = []
  const options = limit === undefined ? {} : { limit }
  for await (const object of store.list(prefix, options)) objects.push(object)
  return objects.sort((left, right) => (left.key < right.key ? -1 : 1))
}

/** An uploader that does not wait long between its attempts. */
export function impatientUploader(opened: OpenedBucket, options: Partial<UploaderOptions> = {}) {
  const errors: Ring2Error[] = []
  const uploader = createUploader({
    queue: opened.location.queue,
    bucket: opened.bucket,
    onError: (error) => void errors.push(error),
    retryMillisMin: 5,
    retryMillisMax: 20,
    pollMillis: 10,
    ...options,
  })
  return { uploader, errors }
}
