/**
 * Writers of one complete Parquet file from rows in memory: ours, and those it is compared with.
 * Each gets the same rows and payloads; none compresses.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writevSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DuckDBInstance, listValue, TIMESTAMPTZ, timestampTZValue } from '@duckdb/node-api'
import { parquetWriteFile } from 'hyparquet-writer'
import type { TensorRow } from '../collector/records.ts'
import { writeParquetFile } from '../exporter/parquet/file-writer.ts'
import { schemaElements, tensorColumns, tensorPayload } from '../exporter/parquet/schema.ts'

const MIB = 1024 * 1024
const GATHER_MAX = 1024

export type WriteRows = (path: string, rows: readonly TensorRow[]) => void | Promise<void>

export function writeOurs(path: string, rows: readonly TensorRow[]): void {
  const metadata = { 'ring2.schema': '1' }
  const columns = tensorColumns
  writeParquetFile({ path, columns, payload: tensorPayload, rows, metadata, fsync: false })
}

/** The payloads alone, one behind the other. */
export function writePlain(path: string, rows: readonly TensorRow[]): void {
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

/** hyparquet-writer as it is: whole columns, and its own file writer. */
export async function writeHyparquet(path: string, rows: readonly TensorRow[]): Promise<void> {
  const columnData = [
    {
      name: 'data',
      data: rows.map((row) => row.data),
      statistics: false,
      encoding: 'PLAIN' as const,
    },
    ...tensorColumns.map((column) => ({
      name: column.name,
      data: rows.map((row) => physical(column.type, column.value(row))),
    })),
  ]
  const schema = schemaElements(tensorColumns, tensorPayload)
  const rowGroupSize = Math.max(1, Math.floor((64 * MIB) / (rows[0]?.data.byteLength ?? 1)))
  await parquetWriteFile({
    filename: path,
    columnData,
    schema,
    codec: 'UNCOMPRESSED',
    rowGroupSize,
  })
}

function physical(type: string, value: unknown): unknown {
  if (value === null || typeof value === 'string') return value
  if (Array.isArray(value)) return value.map(BigInt)
  return type === 'int64' || type === 'timestamp' ? BigInt(Number(value)) : value
}

const duckTypes = {
  string: 'VARCHAR',
  int32: 'INTEGER',
  int64: 'BIGINT',
  double: 'DOUBLE',
  timestamp: 'TIMESTAMPTZ',
  int64_list: 'BIGINT[]',
} as const

/** DuckDB: rows appended to a table in memory, then COPY. */
export async function writeDuck(path: string, rows: readonly TensorRow[]): Promise<void> {
  const instance = await DuckDBInstance.create()
  const connection = await instance.connect()
  const names = tensorColumns.map(({ name, type }) => `"${name}" ${duckTypes[type]}`)
  await connection.run(`CREATE TABLE rows (data BLOB, ${names.join(', ')})`)
  const appender = await connection.createAppender('rows')
  for (const row of rows) {
    appender.appendBlob(row.data)
    for (const { type, value } of tensorColumns) {
      const one = value(row)
      if (one === null) appender.appendNull()
      else if (type === 'string') appender.appendVarchar(String(one))
      else if (type === 'int32') appender.appendInteger(Number(one))
      else if (type === 'int64') appender.appendBigInt(BigInt(Number(one)))
      else if (type === 'double') appender.appendDouble(Number(one))
      else if (Array.isArray(one)) appender.appendList(listValue(one.map(BigInt)))
      else appender.appendValue(timestampTZValue(BigInt(Number(one))), TIMESTAMPTZ)
    }
    appender.endRow()
  }
  appender.closeSync()
  await connection.run(`COPY rows TO '${path}' (FORMAT parquet, COMPRESSION uncompressed)`)
  connection.closeSync()
  instance.closeSync()
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

/** parquetjs-lite, with the row groups at which it is fastest. */
export async function writeLite(path: string, rows: readonly TensorRow[]): Promise<void> {
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

export interface PythonWriter {
  /** Seconds that PyArrow took to write a file, and nothing else of that process. */
  write(path: string): Promise<number>
  close(): Promise<void>
}

/** PyArrow in a process of its own, which has read the rows into memory before. */
export async function openPyArrow(rowsFile: string): Promise<PythonWriter> {
  const root = join(import.meta.dirname, '..')
  const python = process.env.RING2_PYTHON ?? join(root, '.venv', 'bin', 'python')
  const script = join(import.meta.dirname, 'write_parquet.py')
  const child: ChildProcess = spawn(python, [script, rowsFile], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  if (child.stdin === null || child.stdout === null) throw new Error('PyArrow has no pipes')
  const { stdin } = child
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('PyArrow has ended')
    return value
  }
  await answer()
  return {
    async write(path) {
      stdin.write(`${path}\n`)
      return Number(await answer())
    },
    async close() {
      stdin.end()
      await once(child, 'exit')
    },
  }
}
