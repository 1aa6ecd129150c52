/**
 * Fetches one tensor of one trace (64 rows, 4.2 MB) out of stores of 1, 10 and 50 GB, against a DuckDB
 * query of the same rows by trace id, and against a scan by parquetjs-lite, in alternating pairs of
 * one run. Prints `{"results": […]}`.
 *
 *   node bench/fetch.ts [--directory DIR] [--pairs N]
 *
 * Stores are sparse (fetch-stores.ts), files are in the page cache. Ours opens catalogue and file
 * anew each time, as a command does; DuckDB keeps its process and its connection. The fastest of five
 * counts on every side. parquetjs-lite does not read our files, so it scans one of its own, of a
 * quarter of a gigabyte.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import type { TensorRow } from '../collector/records.ts'
import { knownFileOf, openCatalog } from '../exporter/catalog/catalog.ts'
import { createParquetSource } from '../exporter/parquet/parquet-source.ts'
import { createDirectoryStore } from '../exporter/store/fs.ts'
import { createTensorReader } from '../exporter/tensors/reader.ts'
import {
  type BenchStore,
  benchRows,
  makeStore,
  ROW_BYTES,
  ROWS_PER_TRACE,
  writeRealFile,
} from './fetch-stores.ts'
import { comparePairs, type Result } from './pairs.ts'

const python = process.env.RING2_PYTHON ?? join(import.meta.dirname, '../.venv/bin/python')
const TENSOR_BYTES = ROW_BYTES * ROWS_PER_TRACE
/** Fetches of each side in one turn of a pair, of which the fastest counts. */
const TURNS = 5
const sizes = [1e9, 10e9, 50e9] as const

/** Milliseconds of one fetch. `requests` counts what the store is asked. */
async function fetchOurs(store: BenchStore, traceId: string, requests = { count: 0 }) {
  const start = performance.now()
  const catalog = openCatalog(store.catalog)
  const directory = createDirectoryStore(store.root)
  const counted: typeof directory = {
    ...directory,
    getRange: (...range) => {
      requests.count += 1
      return directory.getRange(...range)
    },
    size: (key) => {
      requests.count += 1
      return directory.size(key)
    },
    list: (...prefix) => {
      requests.count += 1
      return directory.list(...prefix)
    },
  }
  const source = createParquetSource(counted, { knownFile: knownFileOf(catalog) })
  const opened = await createTensorReader({ catalog, source }).open({
    traceId,
    requestId: null,
    producer: null,
    hook: 'resid_pre',
    layer: 0,
    rank: null,
    tokens: null,
    heads: null,
  })
  const { byteLength } = await opened.read()
  catalog.close()
  const millis = performance.now() - start
  if (byteLength !== TENSOR_BYTES) throw new Error(`${byteLength} bytes of ${TENSOR_BYTES}`)
  return millis
}

/** A Python process with one DuckDB connection, which answers one query after the other. */
function startDuckDb() {
  const program = join(import.meta.dirname, 'fetch_duckdb.py')
  const child: ChildProcess = spawn(python, [program], { stdio: ['pipe', 'pipe', 'inherit'] })
  if (child.stdout === null) throw new Error('DuckDB has no output')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    /** Milliseconds of the query. */
    fetch: async (store: BenchStore, traceId: string) => {
      child.stdin?.write(`${JSON.stringify({ root: store.root, trace_id: traceId })}\n`)
      const { value } = await lines.next()
      const answer: { millis: number; bytes: number } = JSON.parse(String(value))
      if (answer.bytes !== TENSOR_BYTES) throw new Error(`DuckDB found ${answer.bytes} bytes`)
      return answer.millis
    },
    stop: () => child.stdin?.end(),
  }
}

interface PeerLibrary {
  ParquetSchema: new (fields: Record<string, unknown>) => unknown
  ParquetWriter: {
    openFile(schema: unknown, path: string, options: Record<string, unknown>): Promise<PeerWriter>
  }
  ParquetReader: { openFile(path: string): Promise<PeerReader> }
}

interface PeerWriter {
  appendRow(row: Record<string, unknown>): Promise<void>
  close(): Promise<void>
}

interface PeerReader {
  getCursor(columns: string[]): { next(): Promise<{ trace_id: string; data: Buffer } | null> }
  close(): Promise<void>
}

const peer: PeerLibrary = createRequire(import.meta.url)('parquetjs-lite')

async function writePeer(path: string, rows: readonly TensorRow[]): Promise<void> {
  const schema = new peer.ParquetSchema({
    trace_id: { type: 'UTF8' },
    step: { type: 'INT64' },
    data: { type: 'BYTE_ARRAY', statistics: false },
  })
  const rowGroupSize = (16 * 1024 * 1024) / ROW_BYTES
  const writer = await peer.ParquetWriter.openFile(schema, path, { rowGroupSize, pageIndex: false })
  for (const row of rows) {
    const data = Buffer.from(row.data.buffer, row.data.byteOffset, row.data.byteLength)
    await writer.appendRow({ trace_id: row.request.traceId, step: row.step, data })
  }
  await writer.close()
}

async function scanPeer(path: string, traceId: string): Promise<number> {
  const start = performance.now()
  const reader = await peer.ParquetReader.openFile(path)
  const cursor = reader.getCursor(['trace_id', 'step', 'data'])
  let bytes = 0
  for (let row = await cursor.next(); row !== null; row = await cursor.next()) {
    if (row.trace_id === traceId) bytes += row.data.byteLength
  }
  await reader.close()
  const millis = performance.now() - start
  if (bytes !== TENSOR_BYTES) throw new Error(`parquetjs-lite found ${bytes} bytes`)
  return millis
}

/** The fastest of some turns in a row: what else the machine does only adds time. */
async function fastest(turns: number, measureOnce: () => Promise<number>): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let turn = 0; turn < turns; turn += 1) best = Math.min(best, await measureOnce())
  return best
}

async function measure(folder: string, pairs: number): Promise<Result[]> {
  const rows = benchRows()
  const real = writeRealFile(folder, rows)
  const peerFile = join(folder, 'peer.parquet')
  await writePeer(peerFile, rows)
  const stores = sizes.map((bytes) => makeStore(folder, real, bytes))
  process.stderr.write(`stores of ${stores.map(({ files }) => files).join(', ')} files: done\n`)
  let turn = 0
  const traceId = () => real.traces[(turn++ * 29) % real.traces.length] ?? ''
  const results: Result[] = []
  const duckDb = startDuckDb()
  const [small, , large] = stores
  if (small === undefined || large === undefined) throw new Error('no stores')
  try {
    for (const store of stores) {
      const size = `${Math.round(store.bytes / 1e9)} GB`
      results.push(
        await comparePairs({
          name: `fetch of one tensor (4.2 MB), store of ${size}, ${store.files} files`,
          unit: 'ms',
          vs: 'DuckDB query by trace id',
          ours: () => fastest(TURNS, () => fetchOurs(store, traceId())),
          theirs: () => fastest(TURNS, () => duckDb.fetch(store, traceId())),
          pairs,
        }),
      )
    }
  } finally {
    duckDb.stop()
  }
  results.push(
    await comparePairs({
      name: 'fetch of one tensor, store of 50 GB',
      unit: 'ms',
      vs: 'ours, store of 1 GB',
      ours: () => fastest(TURNS, () => fetchOurs(large, traceId())),
      theirs: () => fastest(TURNS, () => fetchOurs(small, traceId())),
      pairs: pairs * 3,
    }),
    await comparePairs({
      name: 'fetch of one tensor, store of 50 GB; the other scans 0.27 GB',
      unit: 'ms',
      vs: 'parquetjs-lite scan',
      ours: () => fastest(TURNS, () => fetchOurs(large, traceId())),
      theirs: () => fastest(TURNS, () => scanPeer(peerFile, traceId())),
      pairs,
    }),
  )
  const requests = { count: 0 }
  await fetchOurs(large, traceId(), requests)
  const name = 'requests of a fetch, store of 50 GB, payload included'
  return [...results, { name, unit: 'requests', ours: requests.count, peers: {}, ratio: null }]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string', default: tmpdir() },
      pairs: { type: 'string', default: '9' },
    },
  })
  const folder = mkdtempSync(join(values.directory, 'ring2-bench-'))
  try {
    const results = await measure(folder, Math.max(7, Number(values.pairs)))
    process.stdout.write(`${JSON.stringify({ results }, null, 2)}\n`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

await main()
