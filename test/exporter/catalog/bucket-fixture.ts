/** Exporters that write one bucket, each with its own state, and what they ask of the bucket. */

import { onTestFinished } from 'vitest'
import type { ProducerInfo, RequestSummary, TensorRow } from '../../../collector/records.ts'
import { knownFileOf, openCatalogOf } from '../../../exporter/catalog/catalog.ts'
import { createTraceFinder } from '../../../exporter/catalog/trace-finder.ts'
import { createTracePublisher } from '../../../exporter/catalog/trace-publisher.ts'
import type { Ring2Error } from '../../../exporter/errors.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { createQueuedStore } from '../../../exporter/store/queued.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer } from '../tensors/rows.ts'

/** A bucket that writes down what it is asked, and can be made to refuse. */
export function watchedBucket(bucket: ObjectStore) {
  const asked: string[] = []
  const state = { down: false }
  const note = (what: string) => {
    asked.push(what)
    if (state.down) throw new Error('the bucket is down')
  }
  const watched: ObjectStore = {
    ...bucket,
    put: async (key, path) => bucket.put(key, path),
    putBytes: async (key, bytes, options) => {
      note('putBytes')
      return bucket.putBytes(key, bytes, options)
    },
    getRange: async (key, start, length) => {
      note('getRange')
      return bucket.getRange(key, start, length)
    },
    read: async (key, bytesMax) => {
      note('read')
      return bucket.read(key, bytesMax)
    },
    size: async (key) => {
      note('size')
      return bucket.size(key)
    },
    list: (prefix, options) => {
      note('list')
      return bucket.list(prefix, options)
    },
  }
  return { asked, state, bucket: watched }
}

/** @param state folder of this exporter's own state. */
export function openExporter(bucket: ObjectStore, state: string) {
  const location = locateStore('s3://bucket-of-tests/x?endpoint=http://127.0.0.1:1', state)
  const sink = createTensorSink({ location, fsync: false })
  const catalog = openCatalogOf(location)
  const store = createQueuedStore(bucket, location.queue)
  const errors: Ring2Error[] = []
  const onError = (error: Ring2Error) => void errors.push(error)
  const publisher = createTracePublisher({ catalog, bucket, queue: location.queue, onError })
  let millis = 0
  const finder = createTraceFinder({ catalog, bucket, now: () => millis })
  onTestFinished(() => {
    sink.close()
    catalog.close()
  })

  /** Stores rows and summaries as one flush, into the queue. */
  function flush(
    rows: readonly TensorRow[],
    summaries: readonly RequestSummary[] = [],
    from: ProducerInfo = producer,
  ): void {
    for (const row of rows) sink.append(row)
    for (const one of summaries) sink.finish(one)
    const prepared = sink.prepare(from)
    if (prepared.status !== 'success') throw prepared.error
    const published = sink.publish(prepared.value)
    if (published.status !== 'success') throw published.error
  }

  /** Uploads what waits, and writes the indexes that are due then. */
  async function upload(): Promise<number> {
    const uploader = createUploader({ queue: location.queue, bucket, onError })
    await uploader.flush(10_000)
    await uploader.stop()
    return publisher.flush()
  }

  return {
    location,
    sink,
    catalog,
    store,
    publisher,
    errors,
    flush,
    upload,
    find: finder.find,
    /** Lets time pass, so that a trace is looked for again. */
    wait: (forMillis: number) => {
      millis += forMillis
    },
    reader: () =>
      createTensorReader({
        catalog,
        source: createParquetSource(store, { knownFile: knownFileOf(catalog) }),
      }),
  }
}
