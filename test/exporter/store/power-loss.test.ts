/**
 * With `store.fsync`, a row whose ring space is released outlives a power cut: at each step of a
 * flush, what the next step relies on is on the disk already.
 */

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test, vi } from 'vitest'
import { checkpointPath, writeCheckpoint } from '../../../collector/checkpoint.ts'
import { locateStore, type StoreLocation } from '../../../exporter/store/location.ts'
import { parseSpoolName, publishedPath } from '../../../exporter/tensors/spool.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, row, summary } from '../tensors/rows.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { watchDisk } from './disk-model.ts'

function flush(location: StoreLocation, root: string, fsync: boolean) {
  const disk = watchDisk(root)
  onTestFinished(disk.stop)
  const sink = createTensorSink({ location, fsync })
  for (const layer of [0, 1]) sink.append(row({ layer }))
  sink.finish(summary())
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  const inSpool = prepared.value.flatMap((name) => {
    const path = join(location.spool, name)
    return [disk.keeps(path), disk.keeps(`${path}.json`)]
  })
  const facts = {
    directory: root,
    position: 7,
    files: prepared.value,
    steps: [],
    registry: { model: row().model, requests: [] },
  }
  expect(writeCheckpoint(location.spool, producer, facts, fsync).status).toBe('success')
  const checkpoint = disk.keeps(checkpointPath(location.spool, producer))
  expect(sink.publish(prepared.value)).toMatchObject({ status: 'success' })
  const published = prepared.value.map((name) => {
    const path = publishedPath(location, parseSpoolName(name).key)
    expect(existsSync(path)).toBe(true)
    return disk.keeps(path)
  })
  sink.close()
  disk.stop()
  return { inSpool, checkpoint, published }
}

const urls: readonly [string, string, boolean][] = [
  ['a directory', 'store', true],
  ['a bucket', 's3://bucket/prefix', false],
]

test.each(urls)(
  'in %s every step of a flush is on the disk before the next',
  (_, url, isFolder) => {
    const root = temporaryFolder()
    mkdirSync(join(root, 'store'))
    const executed = vi.spyOn(DatabaseSync.prototype, 'exec')
    onTestFinished(() => executed.mockRestore())
    const location = locateStore(isFolder ? join(root, url) : url, join(root, 'state'))
    const kept = flush(location, root, true)
    expect(kept).toEqual({
      inSpool: [true, true, true, true],
      checkpoint: true,
      published: [true, true],
    })
    // The catalogue's entries too: SQLite waits for the disk at each commit.
    expect(executed.mock.calls.flat()).toContain('PRAGMA synchronous = FULL')
  },
)

test('without fsync nothing is waited for, so this test can tell the difference', () => {
  const root = temporaryFolder()
  const kept = flush(locateStore(join(root, 'store'), null), root, false)
  expect(kept).toEqual({
    inSpool: [false, false, false, false],
    checkpoint: false,
    published: [false, false],
  })
})
