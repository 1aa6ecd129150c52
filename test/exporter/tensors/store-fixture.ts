/** A directory store with its sink, catalogue and reader, which counts the bytes it reads. */

import type { ProducerInfo, RequestSummary, TensorRow } from '../../../collector/records.ts'
import { knownFileOf, openCatalog } from '../../../exporter/catalog/catalog.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import type { TensorQuery } from '../../../exporter/tensors/selection.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, traceA } from './rows.ts'

export function countingStore(store: ObjectStore) {
  const counts = { reads: 0, bytes: 0 }
  const getRange: ObjectStore['getRange'] = async (key, start, length) => {
    const bytes = await store.getRange(key, start, length)
    counts.reads += 1
    counts.bytes += bytes.byteLength
    return bytes
  }
  return { counts, store: { ...store, getRange } }
}

export function openFixture(root: string) {
  const location = locateStore(root, null)
  const sink = createTensorSink({ location, fsync: false })
  const catalog = openCatalog(location.catalog)
  const { counts, store } = countingStore(createDirectoryStore(root))

  function reader(bounds: { tensorBytesMax?: number; sourceBytesMax?: number } = {}) {
    const source = createParquetSource(store, { knownFile: knownFileOf(catalog) })
    return createTensorReader({ catalog, source, ...bounds })
  }

  /** Stores rows and summaries as one flush; returns the names in the spool. */
  function flush(
    rows: readonly TensorRow[],
    summaries: readonly RequestSummary[] = [],
    from: ProducerInfo = producer,
  ) {
    for (const row of rows) sink.append(row)
    for (const one of summaries) sink.finish(one)
    const prepared = sink.prepare(from)
    if (prepared.status !== 'success') throw prepared.error
    const published = sink.publish(prepared.value)
    if (published.status !== 'success') throw published.error
    return prepared.value
  }

  return { location, sink, catalog, counts, store, reader, flush }
}

export function query(change: Partial<TensorQuery> = {}): TensorQuery {
  return {
    traceId: traceA,
    requestId: null,
    producer: null,
    hook: 'resid_pre',
    layer: 0,
    rank: null,
    tokens: null,
    heads: null,
    ...change,
  }
}

export function asFloats(bytes: Uint8Array): number[] {
  return [...new Float32Array(bytes.slice().buffer)]
}
