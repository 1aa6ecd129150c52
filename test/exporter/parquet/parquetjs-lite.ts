/** parquetjs-lite, which has no types, as far as the tests read with it. */

import { createRequire } from 'node:module'

interface Cursor {
  next(): Promise<Readonly<Record<string, unknown>> | null>
}

interface Reader {
  getCursor(): Cursor
  getRowCount(): unknown
  close(): Promise<void>
}

interface Library {
  readonly ParquetReader: { openFile(path: string): Promise<Reader> }
}

const library: Library = createRequire(import.meta.url)('parquetjs-lite')

/** Every row of a file, in order. */
export async function readLite(path: string): Promise<Readonly<Record<string, unknown>>[]> {
  const reader = await library.ParquetReader.openFile(path)
  const cursor = reader.getCursor()
  const rows: Readonly<Record<string, unknown>>[] = []
  for (let row = await cursor.next(); row !== null; row = await cursor.next()) rows.push(row)
  await reader.close()
  return rows
}
