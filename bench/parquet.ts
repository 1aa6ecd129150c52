/**
 * Rows → one complete Parquet file, against a plain gathered write of the same bytes and against
 * parquetjs-lite, in alternating pairs of one run. Prints `{"results": […]}`.
 *
 *   node bench/parquet.ts [--directory DIR] [--pairs N]
 *
 * Payloads come from one preallocated buffer, as they come from the ring. Every file is removed
 * after its turn, so each turn writes new pages. Not measured here: the ring, statistics, uploads.
 */

import { closeSync, mkdtempSync, openSync, rmSync, writevSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { TensorRow } from '../collector/records.ts'
import { compareRows } from '../exporter/tensors/description.ts'
import { writeParquetFile } from '../exporter/tensors/file-writer.ts'
import { tensorColumns, tensorPayload } from '../exporter/tensors/schema.ts'

const MIB = 1024 * 1024
const GATHER_MAX = 1024

interface Scale {
  readonly label: string
  readonly rowBytes: number
  readonly fileBytes: number
}

const scales: readonly Scale[] = [
  { label: '2 KiB', rowBytes: 2304, fileBytes: 32 * MIB },
  { label: '64 KiB', rowBytes: 64 * 1024, fileBytes: 256 * MIB },
  { label: '1 MiB', rowBytes: MIB, fileBytes: 256 * MIB },
]

/** parquetjs-lite is slow and holds everything in memory, so its pairs write fewer bytes. */
const peerFileBytes = 64 * MIB

interface Result {
  readonly name: string
  readonly unit: string
  readonly ours: number
  readonly peers: Readonly<Record<string, number>>
  readonly ratio: {
    readonly vs: string
    readonly median: number
    readonly min: number
    readonly max: number
    readonly pairs: number
  }
}

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

function writeOurs(path: string, rows: readonly TensorRow[]): void {
  const metadata = { 'ring2.schema': '1' }
  const columns = tensorColumns
  writeParquetFile({ path, columns, payload: tensorPayload, rows, metadata, fsync: false })
}

function writePlain(path: string, rows: readonly TensorRow[]): void {
  const fd = openSync(path, 'w')
  for (let index = 0; index < rows.length; index += GATHER_MAX) {
    let parts = rows.slice(index, index + GATHER_MAX).map((row) => row.data)
    while (parts.length > 0) parts = drop(parts, writevSync(fd, parts))
  }
  closeSync(fd)
}

/** What is left of the arrays after `written` bytes of them. */
function drop(parts: readonly Uint8Array[], written: number): Uint8Array[] {
  let rest = written
  return parts.flatMap((part) => {
    const taken = Math.min(rest, part.byteLength)
    rest -= taken
    return taken === part.byteLength ? [] : [part.subarray(taken)]
  })
}

interface PeerWriter {
  appendRow(row: Record<string, unknown>): Promise<void>
  close(): Promise<void>
}

interface PeerLibrary {
  readonly ParquetSchema: new (fields: Record<string, unknown>) => unknown
  readonly ParquetWriter: {
    openFile(schema: unknown, path: string, options: Record<string, unknown>): Promise<PeerWriter>
  }
}

const peer: PeerLibrary = createRequire(import.meta.url)('parquetjs-lite')

/** Its types for our columns; a list and our bigints it takes as INT64. */
const peerTypes = {
  string: 'UTF8',
  int32: 'INT32',
  int64: 'INT64',
  double: 'DOUBLE',
  timestamp: 'TIMESTAMP_MICROS',
  int64_list: 'INT64',
} as const

async function writePeer(path: string, rows: readonly TensorRow[]): Promise<void> {
  const fields: Record<string, unknown> = {}
  for (const column of tensorColumns) {
    const type = peerTypes[column.type]
    const repeated = column.type === 'int64_list'
    fields[column.name] = { type, optional: column.nullable, repeated, compression: 'UNCOMPRESSED' }
  }
  // Without this it writes whole payloads into its statistics.
  fields.data = { type: 'BYTE_ARRAY', compression: 'UNCOMPRESSED', statistics: false }
  const writer = await peer.ParquetWriter.openFile(new peer.ParquetSchema(fields), path, {
    rowGroupSize: Math.max(1, Math.floor((16 * MIB) / (rows[0]?.data.byteLength ?? 1))),
    pageIndex: false,
  })
  for (const row of rows) await writer.appendRow(peerRow(row))
  await writer.close()
}

function peerRow(row: TensorRow): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const column of tensorColumns) {
    const value = column.value(row)
    if (value !== null) out[column.name] = Array.isArray(value) ? [...value] : value
  }
  // It wants a Buffer; this is a view of the same bytes.
  out.data = Buffer.from(row.data.buffer, row.data.byteOffset, row.data.byteLength)
  return out
}

type Write = (path: string, rows: readonly TensorRow[]) => void | Promise<void>

/** Bytes of payload per second of one complete file. */
async function rate(write: Write, directory: string, rows: readonly TensorRow[]): Promise<number> {
  const path = join(directory, 'bench.parquet')
  const bytes = rows.reduce((sum, row) => sum + row.data.byteLength, 0)
  const start = performance.now()
  await write(path, rows)
  const seconds = (performance.now() - start) / 1000
  rmSync(path, { force: true })
  return bytes / seconds
}

async function compare(
  name: string,
  vs: string,
  other: Write,
  directory: string,
  rows: readonly TensorRow[],
  pairs: number,
): Promise<Result> {
  // The first turns warm the code up and touch the pages of the page cache.
  await rate(writeOurs, directory, rows)
  await rate(other, directory, rows)
  const ours: number[] = []
  const theirs: number[] = []
  for (let pair = 0; pair < pairs; pair += 1) {
    // Who goes first alternates, so that neither always finds the warmer cache.
    const oursFirst = pair % 2 === 0
    if (oursFirst) ours.push(await rate(writeOurs, directory, rows))
    theirs.push(await rate(other, directory, rows))
    if (!oursFirst) ours.push(await rate(writeOurs, directory, rows))
  }
  const ratios = ours.map((value, index) => value / (theirs[index] ?? Number.NaN))
  return {
    name,
    unit: 'GB/s',
    ours: round(median(ours) / 1e9),
    peers: { [vs]: round(median(theirs) / 1e9) },
    ratio: {
      vs,
      median: round(median(ratios)),
      min: round(Math.min(...ratios)),
      max: round(Math.max(...ratios)),
      pairs,
    },
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2
}

function round(value: number): number {
  return Number(value.toPrecision(3))
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string', default: tmpdir() },
      pairs: { type: 'string', default: '9' },
    },
  })
  const pairs = Math.max(7, Number(values.pairs))
  const directory = mkdtempSync(join(values.directory, 'ring2-bench-'))
  // One source of bytes for all, touched before anything is timed.
  const buffer = new Uint8Array(64 * MIB).map((_, index) => (index * 31) % 251)
  const results: Result[] = []
  try {
    for (const { label, rowBytes, fileBytes } of scales) {
      const rows = makeRows(buffer, rowBytes, fileBytes)
      const name = `parquet-write, rows of ${label}`
      results.push(await compare(name, 'plain writev', writePlain, directory, rows, pairs))
      const few = rows.slice(0, Math.floor(peerFileBytes / rowBytes)).sort(compareRows)
      results.push(await compare(name, 'parquetjs-lite', writePeer, directory, few, pairs))
      process.stderr.write(`${name}: done\n`)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  process.stdout.write(`${JSON.stringify({ results }, null, 2)}\n`)
}

await main()
