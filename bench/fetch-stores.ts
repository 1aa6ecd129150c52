/**
 * Stores of a size that no benchmark could write: one file is real, the others are copies of its
 * small columns, indexes and footer under other trace ids, with holes where their payloads would
 * be. Whoever looks for a trace of the real file reads the same of the others as of true ones.
 *
 * Trace ids spread over the whole range in every file, as true ones do, so that the smallest and the
 * largest of a file tell nothing; the bloom filters of copies are those of the real file.
 */

import {
  closeSync,
  fstatSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32c } from '../collector/index.ts'
import type { TensorRow } from '../collector/records.ts'
import { openCatalog } from '../exporter/catalog/catalog.ts'
import type { FileDescription } from '../exporter/catalog/description.ts'
import { compareRows, describeTensors, placeOf } from '../exporter/catalog/description.ts'
import { writeParquetFile } from '../exporter/parquet/file-writer.ts'
import { SCHEMA_VERSION, tensorColumns, tensorPayload } from '../exporter/parquet/schema.ts'

export const ROW_BYTES = 64 * 1024
export const ROWS_PER_TRACE = 64
const TRACES_PER_FILE = 64
/** Stands in the ids of the real file where copies have a number of their own. */
const MARKER = 'feedc0defeedc0de'

export interface BenchStore {
  readonly root: string
  readonly catalog: string
  readonly bytes: number
  readonly files: number
}

export interface RealFile {
  readonly path: string
  readonly description: FileDescription
  readonly traces: readonly string[]
}

function traceOf(index: number): string {
  const place = Math.floor((index * 256) / TRACES_PER_FILE)
  return `${place.toString(16).padStart(2, '0')}${MARKER}${index.toString(16).padStart(14, '0')}`
}

/** The rows of the real file: of each trace, one tensor over as many steps. */
export function benchRows(): TensorRow[] {
  const source = new Uint8Array(ROW_BYTES * 67).map((_, index) => (index * 31) % 251)
  const checksums = new Map<number, number>()
  const rows: TensorRow[] = []
  for (let trace = 0; trace < TRACES_PER_FILE; trace += 1) {
    for (let step = 0; step < ROWS_PER_TRACE; step += 1) {
      const slot = (trace * ROWS_PER_TRACE + step) % 67
      const data = source.subarray(slot * ROW_BYTES, (slot + 1) * ROW_BYTES)
      const checksum = checksums.get(slot) ?? crc32c(data)
      checksums.set(slot, checksum)
      rows.push(benchRow(traceOf(trace), step, data, checksum))
    }
  }
  return rows.sort(compareRows)
}

function benchRow(traceId: string, step: number, data: Uint8Array, checksum: number): TensorRow {
  return {
    request: {
      key: 1,
      requestId: `chatcmpl-${traceId}`,
      traceId,
      spanId: traceId.slice(16),
      parentSpanId: null,
      traceFlags: 1,
      traceState: null,
      traceOrigin: 'request',
      attributes: {},
      startedAtMicros: 1_772_600_767_000_000,
    },
    model: {
      name: 'bench/model',
      revision: 'main',
      engine: 'transformers',
      dtype: 'float32',
      layers: 30,
      heads: 8,
      kvHeads: 8,
      hidden: ROW_BYTES / 4,
      vocabulary: 1000,
      hooks: {},
    },
    producer: { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'bench', pid: 1 },
    hook: 'resid_pre',
    layer: 0,
    step,
    phase: step === 0 ? 'prefill' : 'decode',
    tokenStart: step,
    tokenEnd: step + 1,
    kvOffset: 0,
    ranks: { tp: 0, pp: 0, dp: 0, ep: 0 },
    capturedAtMicros: 1_772_600_767_000_000 + step,
    dtype: 'float32',
    shape: [1, ROW_BYTES / 4],
    statistics: { l2Mean: step * 0.37, l2Max: step, absMax: step, mean: 0.1, variance: 2 },
    nonfinite: 0,
    crc32c: checksum,
    data,
  }
}

const FOLDER = 'tensors/model_slug=bench-model/date=2026-03-04/hour=05'

function keyOf(index: number): string {
  return `${FOLDER}/chat-00c0ffee-01K${index.toString().padStart(23, '0')}.parquet`
}

export function writeRealFile(folder: string, rows: readonly TensorRow[]): RealFile {
  const path = join(folder, 'real.parquet')
  const written = writeParquetFile({
    path,
    columns: tensorColumns,
    payload: tensorPayload,
    rows,
    metadata: { 'ring2.schema': SCHEMA_VERSION },
    fsync: false,
  })
  const description = describeTensors({ key: keyOf(0), ...written }, rows.map(placeOf))
  return { path, description, traces: [...new Set(rows.map((row) => row.request.traceId))] }
}

/** A store of at least so many bytes, whose one real file is in the middle of the others. */
export function makeStore(folder: string, real: RealFile, bytes: number): BenchStore {
  const root = join(folder, `store-${bytes}`)
  const catalog = join(root, '.ring2', 'catalog.sqlite')
  const files = Math.ceil(bytes / real.description.bytes)
  const opened = openCatalog(catalog)
  mkdirSync(join(root, FOLDER), { recursive: true })
  const tail = readTail(real)
  for (let index = 0; index < files; index += 1) {
    const path = join(root, keyOf(index))
    if (index === Math.floor(files / 2)) {
      linkSync(real.path, path)
      opened.add({ ...real.description, key: keyOf(index) })
    } else {
      const name = (index + 1).toString(16).padStart(MARKER.length, '0')
      writeCopy(path, real, tail.replaceAll(MARKER, name))
      opened.add(copyOf(real.description, index, name))
    }
  }
  opened.close()
  return { root, catalog, bytes: files * real.description.bytes, files }
}

/** One character is one byte. */
function readTail({ path, description }: RealFile): string {
  const fd = openSync(path, 'r')
  const start = description.tail_start ?? 0
  const bytes = Buffer.alloc(fstatSync(fd).size - start)
  readSync(fd, bytes, 0, bytes.length, start)
  closeSync(fd)
  return bytes.toString('latin1')
}

function writeCopy(path: string, { description }: RealFile, tail: string): void {
  mkdirSync(dirname(path), { recursive: true })
  const fd = openSync(path, 'w')
  ftruncateSync(fd, description.bytes)
  writeSync(fd, 'PAR1', 0)
  writeSync(fd, Buffer.from(tail, 'latin1'), 0, undefined, description.tail_start ?? 0)
  closeSync(fd)
}

function copyOf(description: FileDescription, index: number, name: string): FileDescription {
  const copy: FileDescription = JSON.parse(JSON.stringify(description).replaceAll(MARKER, name))
  return { ...copy, key: keyOf(index) }
}
