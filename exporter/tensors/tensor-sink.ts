/**
 * The sink of tensor rows and request summaries: pending rows become complete files in the spool
 * (`prepare`), and files of the spool become visible in the store and the catalogue (`publish`).
 *
 * It runs inside a drain worker, so everything is synchronous and nothing throws: errors come back
 * as outcomes. Invariants: until `prepare` has succeeded all rows stay pending and no file of the
 * attempt is left; what `prepare` returned can be published by another process after a crash;
 * publishing twice leaves one file and one catalogue entry.
 *
 * Not here: uploads (store/uploader.ts), what a checkpoint remembers (pipeline).
 */

import { join } from 'node:path'
import { monotonicFactory } from 'ulid'
import type {
  Outcome,
  ProducerInfo,
  RequestSummary,
  TensorRow,
  TensorSink,
} from '../../collector/records.ts'
import { type Catalog, openCatalogOf } from '../catalog/catalog.ts'
import type { FileDescription } from '../catalog/description.ts'
import { createRowEncoder } from '../codecs/encode.ts'
import { planCodecs } from '../codecs/plan.ts'
import {
  asRing2Error,
  failure,
  Ring2Error,
  retryable,
  storeError,
  success,
  systemCode,
} from '../errors.ts'
import { uploadLimits } from '../limits.ts'
import type { StoreLocation } from '../store/location.ts'
import { createPendingRows } from './pending-rows.ts'
import { writePending } from './prepare.ts'
import {
  discardPrepared,
  folderBytes,
  moveIntoPlace,
  parseSpoolName,
  publishedPath,
  readDescription,
  removeDescription,
} from './spool.ts'
import { isNewPart, type PendingVocabulary } from './vocabularies.ts'

export interface TensorSinkOptions {
  readonly location: StoreLocation
  /** Waits for the disk at each file; costs throughput, survives a power cut. */
  readonly fsync: boolean
  /** `HOOK=CODEC`, as in the configuration; left out, every row is stored as it is. */
  readonly codecs?: readonly string[]
  /** Bytes that may wait for upload; the default is `uploadLimits.queueBytesMax`. */
  readonly queueBytesMax?: number
  /** Ids of files, for an import whose files are to have the same names again. */
  readonly nextUlid?: () => string
}

export interface ClosableTensorSink extends TensorSink {
  /** Keeps a request that belongs to another trace than its rows say, until the next flush. */
  moved(summary: RequestSummary): void
  /** Closes the catalogue; the sink opens it again when it is used again. */
  close(): void
}

export function createTensorSink(options: TensorSinkOptions): ClosableTensorSink {
  const { location, fsync } = options
  const queueBytesMax = options.queueBytesMax ?? uploadLimits.queueBytesMax
  const nextUlid = options.nextUlid ?? monotonicFactory()
  const encode = createRowEncoder(planCodecs(options.codecs ?? []))
  const descriptions = new Map<string, FileDescription>()
  const rows = createPendingRows()
  let summaries: RequestSummary[] = []
  let moved: RequestSummary[] = []
  let vocabularies: PendingVocabulary[] = []
  let catalog: Catalog | null = null

  function append(row: TensorRow): void {
    rows.add(encode(row))
  }

  function prepare(producer: ProducerInfo): Outcome<readonly string[]> {
    const waiting = rows.rows() + summaries.length + moved.length + vocabularies.length
    if (waiting === 0) return success([])
    // Files hold more than payloads; a guess that is too large only waits a little earlier.
    const coming =
      rows.bytes() + waiting * uploadLimits.rowOverheadBytes + uploadLimits.fileOverheadBytes
    const full = queueFull(location, coming, queueBytesMax)
    if (full !== null) return retryable(full)
    const outcome = attempt('write into the spool', location.spool, () =>
      writePending({
        spool: location.spool,
        ...{ producer, rows, summaries, moved, fsync, nextUlid },
        vocabularies: newVocabularies(),
      }),
    )
    if (outcome.status !== 'success') return outcome
    for (const [name, description] of outcome.value) descriptions.set(name, description)
    rows.clear()
    summaries = []
    moved = []
    vocabularies = []
    return success([...outcome.value.keys()])
  }

  /** Every process that attaches a model sends its vocabulary; it is stored once. */
  function newVocabularies(): PendingVocabulary[] {
    if (vocabularies.length === 0) return []
    catalog ??= openCatalogOf(location, fsync)
    const known = catalog
    return vocabularies.filter((one) => isNewPart(known, one))
  }

  function publish(names: readonly string[]): Outcome<void> {
    for (const name of names) {
      const outcome = attempt('publish', join(location.spool, name), () => publishOne(name))
      if (outcome.status !== 'success') return outcome
    }
    return success(undefined)
  }

  function publishOne(name: string): void {
    const { key } = parseSpoolName(name)
    const from = join(location.spool, name)
    const description = descriptions.get(name) ?? readDescription(from)
    const place = moveIntoPlace(from, publishedPath(location, key), fsync)
    catalog ??= openCatalogOf(location, fsync)
    // An uploaded file has left the queue: the catalogue knows it, or the description is still
    // here because a crash came between the two.
    const uploaded = location.target.kind === 's3' && description !== null
    if (place === 'absent' && !uploaded && !catalog.has(key)) throw missing(from, key)
    if (description !== null) catalog.add(description)
    removeDescription(from)
    descriptions.delete(name)
  }

  function close(): void {
    catalog?.close()
    catalog = null
  }

  return {
    append,
    finish: (summary) => void summaries.push(summary),
    moved: (summary) => void moved.push(summary),
    vocabulary: (part, producer, atMicros) => void vocabularies.push({ part, producer, atMicros }),
    pending: () => ({
      rows: rows.rows(),
      bytes: rows.bytes(),
      summaries: summaries.length + moved.length,
    }),
    prepare,
    publish,
    discardExcept: (producer, names) =>
      attempt('clear', location.spool, () => discardPrepared(location.spool, producer, names)),
    close,
  }
}

/** What the system refuses may succeed later; anything else will not. */
function attempt<T>(doing: string, path: string, act: () => T): Outcome<T> {
  try {
    return success(act())
  } catch (error) {
    if (systemCode(error) !== null) return retryable(storeError(doing, path, error))
    if (error instanceof Ring2Error && isTemporary(error)) return retryable(error)
    return failure(asRing2Error(error))
  }
}

/** A catalogue that is locked, unwritable or out of space may be written later. */
function isTemporary(error: Ring2Error): boolean {
  const cause = error.cause
  if (systemCode(cause) !== null) return true
  if (typeof cause !== 'object' || cause === null || !('errcode' in cause)) return false
  // SQLite's primary result codes: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
  return [5, 6, 8, 10, 13, 14].includes(Number(cause.errcode) & 0xff)
}

function missing(path: string, key: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `the prepared file ${path}, or ${key} in the store`,
    actual: 'neither',
    action: 'Was the spool or the store emptied by hand? These rows are lost.',
  })
}

function queueFull(location: StoreLocation, bytes: number, bytesMax: number): Ring2Error | null {
  if (location.target.kind === 'directory') return null
  const waiting = folderBytes(location.queue)
  // An empty queue always takes a flush, however small the bound is.
  if (waiting === 0 || waiting + bytes <= bytesMax) return null
  return new Ring2Error('RING2_E_STORE', {
    expected: `at most ${bytesMax} bytes waiting for upload in ${location.queue}`,
    actual: `${waiting} bytes, and ${bytes} more to come`,
    action: 'Check that the bucket takes uploads; captured data waits in the ring meanwhile.',
  })
}
