/**
 * What a deletion has done and has still to do, as one small file of the state directory: whoever
 * deletes next, or starts the exporter, finishes what a crash or a refusing store has interrupted.
 *
 *   {state}/deletions/{ulid}.json        a journal
 *   {state}/deletions/{key, flat}        a rewritten file that is not yet in the store
 *
 * Invariant: a journal is replaced by a rename, so it is whole. It is removed when everything that it
 * names is gone.
 */

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { DeletionTarget } from '../catalog/removal.ts'
import { Ring2Error, storeError, systemCode } from '../errors.ts'
import type { StoreLocation } from '../store/location.ts'

const VERSION = 1
const SUFFIX = '.json'
const NAME = /^[0-9A-Z]{26}\.json$/

/** One file that has rows of what is deleted, or may have. */
export interface JournalFile {
  readonly key: string
  /** Keys of the files that take its place; null until they are chosen. */
  parts: string[] | null
  /** The store has them all. */
  published: boolean
  removedRows: number
  removedBytes: number
  /** The file is gone, or had nothing to remove. */
  done: boolean
}

export interface Journal {
  readonly version: number
  readonly id: string
  /** As asked for. */
  readonly traceId: string
  readonly requestId: string | null
  readonly targets: readonly DeletionTarget[]
  readonly requests: number
  /** Ids of all traces that its requests are known by. */
  readonly traces: readonly string[]
  readonly files: JournalFile[]
}

export function deletionFolder(location: StoreLocation): string {
  return join(dirname(location.catalog), 'deletions')
}

/** Throws RING2_E_STORE where it cannot be written. */
export function writeJournal(folder: string, journal: Journal): void {
  const path = join(folder, journal.id + SUFFIX)
  const temporary = `${path}.tmp`
  try {
    mkdirSync(folder, { recursive: true, mode: 0o750 })
    const fd = openSync(temporary, 'w', 0o600)
    try {
      writeFileSync(fd, JSON.stringify(journal))
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
  } catch (error) {
    throw storeError('write', path, error)
  }
}

export function removeJournal(folder: string, journal: Journal): void {
  const path = join(folder, journal.id + SUFFIX)
  try {
    rmSync(path, { force: true })
  } catch (error) {
    throw storeError('remove', path, error)
  }
}

/** Removes what an interrupted deletion has left beside its journal. The caller holds the lock. */
export function clearLeftovers(folder: string): void {
  try {
    for (const name of readdirSync(folder)) {
      if (!NAME.test(name) && !/^lock(-journal)?$/.test(name)) rmSync(join(folder, name))
    }
  } catch (error) {
    throw storeError('clear', folder, error)
  }
}

/** Journals of deletions that are not finished, the oldest first. */
export function unfinishedJournals(folder: string): Journal[] {
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('read', folder, error)
  }
  return names
    .filter((name) => NAME.test(name))
    .sort()
    .map((name) => readJournal(join(folder, name)))
}

function readJournal(path: string): Journal {
  try {
    const journal = JSON.parse(readFileSync(path, 'utf8'))
    if (journal.version !== VERSION) throw new Error(`version ${journal.version}`)
    return journal
  } catch (error) {
    throw new Ring2Error('RING2_E_DELETION', {
      expected: `a readable journal of a deletion at ${path}`,
      actual: error instanceof Error ? error.message : String(error),
      action: 'Remove the journal, run `ring2-exporter catalog rebuild`, and delete again.',
      cause: error,
    })
  }
}

export function newJournal(facts: Omit<Journal, 'version'>): Journal {
  return { version: VERSION, ...facts }
}
