/**
 * Writes pending rows and summaries as complete files of the spool, one or more per partition.
 *
 * Invariant: all files are written, or none of the attempt is left. Not here: what is pending, and
 * when a file becomes visible (tensor-sink.ts, spool.ts).
 */

import { join } from 'node:path'
import type { ProducerInfo, RequestSummary } from '../../collector/records.ts'
import {
  aliasEntry,
  describeContexts,
  describeRequests,
  type FileDescription,
} from '../catalog/description.ts'
import { parquetLimits } from '../limits.ts'
import { writeParquetFile, writeParquetSource } from '../parquet/file-writer.ts'
import {
  contextColumns,
  requestColumns,
  SCHEMA_VERSION,
  tensorColumns,
  tensorPayload,
} from '../parquet/schema.ts'
import { type Dataset, fileKey, partition, producerSlug } from '../store/keys.ts'
import type { PendingRows } from './pending-rows.ts'
import type { RowTable } from './row-table.ts'
import { makeFolder, removePrepared, spoolName, syncPath, writeDescription } from './spool.ts'
import {
  describeVocabularies,
  type PendingVocabulary,
  vocabularyColumns,
  vocabularyEntry,
} from './vocabularies.ts'

export interface PendingFiles {
  readonly spool: string
  readonly producer: ProducerInfo
  readonly rows: PendingRows
  readonly summaries: readonly RequestSummary[]
  /** Requests that belong to another trace than their rows say. */
  readonly moved: readonly RequestSummary[]
  /** Parts of vocabularies that are not stored yet. */
  readonly vocabularies?: readonly PendingVocabulary[]
  readonly fsync: boolean
  readonly nextUlid: () => string
}

/**
 * Writes the files and returns their descriptions by their names in the spool. Throws what the
 * system or the encoder throws, after removing what it had written.
 */
export function writePending(pending: PendingFiles): Map<string, FileDescription> {
  const files = new Map<string, FileDescription>()
  const folder = join(pending.spool, producerSlug(pending.producer))
  makeFolder(folder, pending.fsync, 0o750)
  try {
    writeTensorFiles(pending, files)
    writeRequestFiles(pending, files)
    writeContextFiles(pending, files)
    writeVocabularyFiles(pending, files)
    // The checkpoint that is written next names these files, so they must outlast it.
    if (pending.fsync) syncPath(folder)
  } catch (error) {
    removeAttempt(pending.spool, files.keys())
    throw error
  }
  return files
}

function writeTensorFiles(pending: PendingFiles, files: Map<string, FileDescription>): void {
  const { producer, fsync } = pending
  for (const [folder, table] of pending.rows.tables()) {
    for (const source of splitByBytes(table)) {
      writeOne(pending, folder, files, (key, path) => {
        const written = writeParquetSource({
          path,
          columns: tensorColumns,
          payload: tensorPayload,
          source,
          metadata: metadata(producer),
          fsync,
        })
        return source.describe().finish({ key, ...written })
      })
    }
  }
}

function writeRequestFiles(pending: PendingFiles, files: Map<string, FileDescription>): void {
  const { producer, fsync } = pending
  for (const [folder, rows] of groupSummaries('requests', pending.summaries)) {
    writeOne(pending, folder, files, (key, path) => {
      const written = writeParquetFile({
        path,
        columns: requestColumns,
        payload: null,
        rows,
        metadata: metadata(producer),
        fsync,
      })
      return describeRequests({ key, ...written }, rows)
    })
  }
}

function writeContextFiles(pending: PendingFiles, files: Map<string, FileDescription>): void {
  const { producer, fsync } = pending
  for (const [folder, rows] of groupSummaries('contexts', pending.moved)) {
    writeOne(pending, folder, files, (key, path) => {
      const written = writeParquetFile({
        path,
        columns: contextColumns,
        payload: null,
        rows,
        metadata: metadata(producer),
        fsync,
      })
      return describeContexts({ key, ...written }, rows.map(aliasEntry))
    })
  }
}

function writeVocabularyFiles(pending: PendingFiles, files: Map<string, FileDescription>): void {
  const { producer, fsync } = pending
  const groups = Map.groupBy(pending.vocabularies ?? [], ({ part, atMicros }) =>
    partition('vocabularies', part.model, atMicros),
  )
  for (const [folder, rows] of groups) {
    writeOne(pending, folder, files, (key, path) => {
      const written = writeParquetFile({
        path,
        columns: vocabularyColumns,
        payload: null,
        rows,
        metadata: metadata(producer),
        fsync,
      })
      return describeVocabularies({ key, ...written }, rows.map(vocabularyEntry))
    })
  }
}

function writeOne(
  pending: PendingFiles,
  folder: string,
  files: Map<string, FileDescription>,
  write: (key: string, path: string) => FileDescription,
): void {
  const key = fileKey(folder, pending.producer, pending.nextUlid())
  const name = spoolName(pending.producer, key)
  const path = join(pending.spool, name)
  try {
    const description = write(key, path)
    writeDescription(path, description, pending.fsync)
    files.set(name, description)
  } catch (error) {
    removeAttempt(pending.spool, [name])
    throw error
  }
}

function removeAttempt(spool: string, names: Iterable<string>): void {
  for (const name of names) {
    try {
      removePrepared(join(spool, name))
    } catch {
      // The disk refuses this too; discardExcept removes the leftover at the next start.
    }
  }
}

function groupSummaries(
  dataset: Dataset,
  summaries: readonly RequestSummary[],
): Map<string, RequestSummary[]> {
  return Map.groupBy(summaries, (summary) =>
    partition(dataset, summary.model.name, summary.request.startedAtMicros),
  )
}

function* splitByBytes(table: RowTable): Generator<RowTable> {
  let start = 0
  let bytes = 0
  for (let index = 0; index < table.count; index += 1) {
    const size = table.payloadBytes(index)
    const full = bytes + size > parquetLimits.fileBytesMax
    if (index > start && (full || index - start >= parquetLimits.fileRowsMax)) {
      yield table.slice(start, index)
      start = index
      bytes = 0
    }
    bytes += size
  }
  yield start === 0 ? table : table.slice(start, table.count)
}

function metadata(producer: ProducerInfo): Record<string, string> {
  return {
    'ring2.schema': SCHEMA_VERSION,
    'ring2.producer': producer.segment,
    'ring2.boot': producer.boot,
  }
}
