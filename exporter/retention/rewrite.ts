/**
 * Writes the rows of a file that stay into new files: every column as it was, the same order, the same
 * bytes of every payload. The file itself is left alone.
 *
 * Memory is bounded: one part at a time is read and written, and a part has at most `partBytesMax`
 * payload bytes or one row. Not here: which file replaces which (delete-trace.ts).
 */

import { join } from 'node:path'
import { ulid } from 'ulid'
import type { DeletionTarget } from '../catalog/removal.ts'
import { writeParquetFile } from '../parquet/file-writer.ts'
import type { ParquetRow, ParquetSource } from '../parquet/parquet-source.ts'
import { storedColumns } from '../parquet/stored-columns.ts'
import { datasetOf, flatName } from '../store/keys.ts'
import { ulidOf } from '../store/queued.ts'
import { deletionLimits } from './limits.ts'
import { matcher } from './match.ts'

/** Rows [start, end) of a file. */
interface RowRange {
  readonly start: number
  readonly end: number
}

/** What becomes of a file. */
export interface RewritePlan {
  readonly removedRows: number
  readonly removedBytes: number
  /** Each part has a run of the rows that stay, as ranges; none when nothing stays. */
  readonly parts: readonly (readonly RowRange[])[]
}

/** Reads which rows go and cuts the others into parts. */
export async function planRewrite(
  source: ParquetSource,
  key: string,
  targets: readonly DeletionTarget[],
  partBytesMax: number = deletionLimits.partBytesMax,
): Promise<RewritePlan> {
  const dataset = datasetOf(key)
  const hasPayload = dataset === 'tensors'
  const { columns, matches } = matcher(dataset, targets)
  const asked = hasPayload ? [...columns, 'data_bytes'] : columns
  const rows = await source.rows(key)
  const plan = createPlan(partBytesMax)
  for (let start = 0; start < rows; start += deletionLimits.rowsAtOnce) {
    const end = Math.min(rows, start + deletionLimits.rowsAtOnce)
    const read = await source.read(key, asked, start, end)
    for (const [index, row] of read.entries()) {
      const bytes = hasPayload ? Number(row.data_bytes) : 0
      if (matches(row)) plan.remove(bytes)
      else plan.keep(start + index, bytes)
    }
  }
  return plan.done()
}

function createPlan(partBytesMax: number) {
  let removedRows = 0
  let removedBytes = 0
  let partBytes = 0
  const parts: { start: number; end: number }[][] = []

  function keep(row: number, bytes: number): void {
    let part = parts.at(-1)
    if (part === undefined || partBytes + bytes > partBytesMax) {
      part = []
      parts.push(part)
      partBytes = 0
    }
    partBytes += bytes
    const last = part.at(-1)
    if (last?.end === row) last.end += 1
    else part.push({ start: row, end: row + 1 })
  }

  return {
    keep,
    remove(bytes: number) {
      removedRows += 1
      removedBytes += bytes
    },
    done: (): RewritePlan => ({ removedRows, removedBytes, parts }),
  }
}

/**
 * Keys for the parts of a file, in the same folder. Their ULIDs have the time of the file's own: a
 * deletion makes nothing younger, and files keep their order.
 */
export function partKeys(key: string, parts: number): string[] {
  const own = ulidOf(key)
  const head = key.slice(0, -`${own}.parquet`.length)
  const millis = timeOf(own)
  const names = Array.from({ length: parts }, () => ulid(millis)).sort()
  return names.map((name) => `${head}${name}.parquet`)
}

const CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const TIME_CHARACTERS = 10

/** Milliseconds since the epoch that a ULID begins with. */
export function timeOf(name: string): number {
  let millis = 0
  for (const character of name.slice(0, TIME_CHARACTERS)) {
    millis = millis * CROCKFORD.length + CROCKFORD.indexOf(character)
  }
  return Number.isSafeInteger(millis) && millis >= 0 ? millis : Date.now()
}

export interface WritePart {
  readonly source: ParquetSource
  /** The file whose rows stay, and that of this part. */
  readonly from: string
  readonly to: string
  readonly ranges: readonly RowRange[]
  readonly folder: string
  readonly fsync: boolean
}

/** Writes one part into the folder and returns its path. */
export async function writePart(part: WritePart): Promise<string> {
  const { source, from, to, ranges, folder, fsync } = part
  const { columns, payload } = storedColumns(from, await source.schema(from))
  const names = [...columns.map(({ name }) => name), ...(payload === null ? [] : [payload.name])]
  const rows: ParquetRow[] = []
  for (const { start, end } of ranges) {
    for (const row of await source.read(from, names, start, end)) rows.push(row)
  }
  const path = join(folder, flatName(to))
  const metadata = Object.fromEntries(await source.metadata(from))
  writeParquetFile({ path, columns, payload, rows, metadata, fsync })
  return path
}
