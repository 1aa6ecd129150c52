/**
 * The write path: full rings → Parquet in a directory against a plain write, and rows in memory →
 * one Parquet file against a plain gathered write and other writers, in alternating pairs of one run.
 * Prints `{"results": […]}`.
 *
 *   node bench/store.ts [--directory DIR] [--pairs N] [--only ring|rows]
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { TensorRow } from '../collector/records.ts'
import { compareRows } from '../exporter/catalog/description.ts'
import { warmPageCache } from './page-cache.ts'
import { comparePairs, type Measure, type Result } from './pairs.ts'
import {
  openPyArrow,
  type WriteRows,
  writeDuck,
  writeHyparquet,
  writeLite,
  writeOurs,
  writePlain,
} from './parquet-writers.ts'
import { measureRing, scales } from './ring-to-store.ts'

const MIB = 1024 * 1024

interface RowScale {
  readonly label: string
  readonly rowBytes: number
  readonly fileBytes: number
  /** Other writers are slow, and some hold everything in memory, so they write fewer bytes. */
  readonly peerFileBytes: number
}

const rowScales: readonly RowScale[] = [
  { label: '2 KiB', rowBytes: 2304, fileBytes: 32 * MIB, peerFileBytes: 16 * MIB },
  { label: '64 KiB', rowBytes: 64 * 1024, fileBytes: 256 * MIB, peerFileBytes: 64 * MIB },
  { label: '1 MiB', rowBytes: MIB, fileBytes: 256 * MIB, peerFileBytes: 64 * MIB },
]

const peerPairs = 5

function makeRows(buffer: Uint8Array, rowBytes: number, fileBytes: number): TensorRow[] {
  const count = Math.floor(fileBytes / rowBytes)
  const slots = Math.floor(buffer.byteLength / rowBytes)
  const rows: TensorRow[] = []
  for (let index = 0; index < count; index += 1) {
    const start = (index % slots) * rowBytes
    rows.push(makeRow(index, buffer.subarray(start, start + rowBytes)))
  }
  return rows.sort(compareRows)
}

function makeRow(index: number, data: Uint8Array): TensorRow {
  const layer = index % 30
  const step = Math.floor(index / 30)
  return {
    request: {
      key: 1,
      requestId: 'chatcmpl-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed',
      traceId: '0af7651916cd43dd8448eb211c80319c',
      spanId: 'b7ad6b7169203331',
      parentSpanId: null,
      traceFlags: 1,
      traceState: null,
      traceOrigin: 'request',
      attributes: {},
      startedAtMicros: 1_772_600_767_000_000,
    },
    model: {
      name: 'HuggingFaceTB/SmolLM2-135M-Instruct',
      revision: 'main',
      engine: 'transformers',
      dtype: 'float32',
      layers: 30,
      heads: 9,
      kvHeads: 3,
      hidden: 576,
      vocabulary: 49_152,
      hooks: {},
    },
    producer: { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'bench', pid: 1 },
    hook: 'resid_pre',
    layer,
    step,
    phase: step === 0 ? 'prefill' : 'decode',
    tokenStart: step,
    tokenEnd: step + 1,
    kvOffset: 0,
    ranks: { tp: 0, pp: 0, dp: 0, ep: 0 },
    capturedAtMicros: 1_772_600_767_000_000 + index,
    dtype: 'float32',
    shape: [1, data.byteLength / 4],
    statistics: {
      l2Mean: index * 0.37,
      l2Max: index * 0.71,
      absMax: index,
      mean: 0.1,
      variance: 2,
    },
    nonfinite: 0,
    crc32c: (index * 2_654_435_761) >>> 0,
    data,
  }
}

/** Bytes of payload per second of one complete file, which is removed afterwards. */
function rate(write: WriteRows, directory: string, rows: readonly TensorRow[]): Measure {
  const bytes = rows.reduce((sum, row) => sum + row.data.byteLength, 0)
  const path = join(directory, 'bench.parquet')
  return async () => {
    warmPageCache(directory, 2 * bytes)
    const start = performance.now()
    await write(path, rows)
    const seconds = (performance.now() - start) / 1000
    rmSync(path, { force: true })
    return bytes / seconds / 1e9
  }
}

/** Every other writer, each in pairs with ours. */
async function compareWriters(
  name: string,
  directory: string,
  rows: readonly TensorRow[],
): Promise<Result[]> {
  const ours = rate(writeOurs, directory, rows)
  const common = { name, unit: 'GB/s', ours, pairs: peerPairs }
  const peers: readonly (readonly [string, WriteRows])[] = [
    ['parquetjs-lite', writeLite],
    ['hyparquet-writer', writeHyparquet],
    ['DuckDB', writeDuck],
  ]
  const results: Result[] = []
  for (const [vs, write] of peers) {
    results.push(await comparePairs({ ...common, vs, theirs: rate(write, directory, rows) }))
    process.stderr.write(`${name}, ${vs}: done\n`)
  }
  const source = join(directory, 'source.parquet')
  writeOurs(source, rows)
  const arrow = await openPyArrow(source)
  const bytes = rows.reduce((sum, row) => sum + row.data.byteLength, 0)
  const path = join(directory, 'bench.parquet')
  const theirs = async (): Promise<number> => {
    warmPageCache(directory, 2 * bytes)
    const seconds = await arrow.write(path)
    rmSync(path)
    return bytes / seconds / 1e9
  }
  results.push(await comparePairs({ ...common, vs: 'PyArrow', theirs }))
  await arrow.close()
  rmSync(source)
  return results
}

async function measureRows(directory: string, pairs: number): Promise<Result[]> {
  // One source of bytes for all, touched before anything is timed.
  const buffer = new Uint8Array(64 * MIB).map((_, index) => (index * 31) % 251)
  const results: Result[] = []
  for (const { label, rowBytes, fileBytes, peerFileBytes } of rowScales) {
    const rows = makeRows(buffer, rowBytes, fileBytes)
    const name = `rows → Parquet, ${label}`
    const ours = rate(writeOurs, directory, rows)
    const theirs = rate(writePlain, directory, rows)
    const vs = 'plain gathered write'
    results.push(await comparePairs({ name, unit: 'GB/s', vs, ours, theirs, pairs }))
    const few = makeRows(buffer, rowBytes, peerFileBytes)
    results.push(...(await compareWriters(name, directory, few)))
  }
  return results
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string', default: tmpdir() },
      pairs: { type: 'string', default: '9' },
      only: { type: 'string' },
    },
  })
  const pairs = Number(values.pairs)
  const results: Result[] = []
  if (values.only !== 'rows') {
    for (const scale of scales) {
      results.push(...(await measureRing(scale, values.directory, pairs)))
      process.stderr.write(`ring → Parquet, ${scale.label}: done\n`)
    }
  }
  if (values.only !== 'ring') {
    const directory = mkdtempSync(join(values.directory, 'ring2-bench-'))
    try {
      results.push(...(await measureRows(directory, pairs)))
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
  process.stdout.write(`${JSON.stringify({ results }, null, 2)}\n`)
}

await main()
