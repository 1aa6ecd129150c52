/**
 * What a deletion has done and has still to do, as one small file of the state directory: whoever
 * deletes next, or starts the exporter, finishes what a crash or a refusing store has interrupted.
 *
 *   {state}/deletions/{ulid}.json        a journal
 *   {state}/deletions/{ulid}.steps       what has changed since it was written, a line for each step
 *   {state}/deletions/{key, flat}        a rewritten file that is not yet in the store
 *
 * Invariant: a journal is replaced by a rename, so it is whole, and its steps may be applied again. A
 * step is one line, however many files there are; one that was cut off was not taken. Both are removed
 * when everything that they name is gone.
 */

import {
  appendFileSync,
  closeSync,
  existsSync,
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
import { asRing2Error, errorText, Ring2Error, storeError, systemCode } from '../errors.ts'
import type { StoreLocation } from '../store/location.ts'
import { syncPath } from '../tensors/spool.ts'

const VERSION = 1
const SUFFIX = '.json'
const STEPS = '.steps'
const NAME = /^[0-9A-Z]{26}\.json$/
const STEPS_NAME = /^[0-9A-Z]{26}\.steps$/

/** One file that has rows of what is deleted, or may have. */
export interface JournalFile {
  readonly key: string
  /** Keys of the files that take its place; null until they are chosen. */
  parts: string[] | null
  /**
   * Whose catalogue describes the file, as `parts` were chosen: this one, that of another exporter
   * of the bucket, or none that this one could know of.
   */
  owner: 'self' | 'other' | 'unlisted'
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

/** Writes all of it; steps that were noted are in it. Throws RING2_E_STORE where it cannot be written. */
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
    syncPath(folder)
    rmSync(join(folder, journal.id + STEPS), { force: true })
  } catch (error) {
    throw storeError('write', path, error)
  }
}

/** Adds what one file's entry says now. Costs the same however many files there are. */
export function noteFile(folder: string, journal: Journal, index: number): void {
  const path = join(folder, journal.id + STEPS)
  try {
    const line = `${JSON.stringify([index, journal.files[index]])}\n`
    appendFileSync(path, line, { mode: 0o600, flush: true })
  } catch (error) {
    throw storeError('write', path, error)
  }
}

export function removeJournal(folder: string, journal: Journal): void {
  const path = join(folder, journal.id + SUFFIX)
  try {
    rmSync(path, { force: true })
    rmSync(join(folder, journal.id + STEPS), { force: true })
    syncPath(folder)
  } catch (error) {
    throw storeError('remove', path, error)
  }
}

/** Removes what an interrupted deletion has left beside its journal. The caller holds the lock. */
export function clearLeftovers(folder: string): void {
  try {
    const names = new Set(readdirSync(folder))
    for (const name of names) {
      const used = STEPS_NAME.test(name) && names.has(name.replace(STEPS, SUFFIX))
      if (used || NAME.test(name) || /^lock(-journal)?$/.test(name)) continue
      rmSync(join(folder, name))
    }
  } catch (error) {
    throw storeError('clear', folder, error)
  }
}

export interface UnfinishedJournals {
  /** The oldest first. */
  readonly journals: readonly Journal[]
  /** One for each that cannot be read. */
  readonly unreadable: readonly Ring2Error[]
}

export function hasJournals(folder: string): boolean {
  return namesIn(folder).length > 0
}

/** Journals of deletions that are not finished. */
export function unfinishedJournals(folder: string): UnfinishedJournals {
  const journals: Journal[] = []
  const unreadable: Ring2Error[] = []
  for (const name of namesIn(folder)) {
    try {
      journals.push(readJournal(join(folder, name)))
    } catch (error) {
      unreadable.push(asRing2Error(error))
    }
  }
  return { journals, unreadable }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => NAME.test(name))
      .sort()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('read', folder, error)
  }
}

function readJournal(path: string): Journal {
  try {
    const journal = JSON.parse(readFileSync(path, 'utf8'))
    if (journal.version !== VERSION) throw new Error(`version ${journal.version}`)
    applySteps(journal, path.slice(0, -SUFFIX.length) + STEPS)
    return journal
  } catch (error) {
    throw new Ring2Error('RING2_E_DELETION', {
      expected: `a readable journal of a deletion at ${path}`,
      actual: errorText(error),
      action: 'Remove the journal, run `ring2-exporter catalog rebuild`, and delete again.',
      cause: error,
    })
  }
}

function applySteps(journal: Journal, path: string): void {
  if (!existsSync(path)) return
  const lines = readFileSync(path, 'utf8').split('\n')
  // What follows the last line's end was cut off.
  for (const line of lines.slice(0, -1)) {
    const [index, file]: [number, JournalFile] = JSON.parse(line)
    journal.files[index] = file
  }
}

/** A file of which nothing is done yet. */
export function toDo(key: string): JournalFile {
  const nothing = { parts: null, published: false, removedRows: 0, removedBytes: 0, done: false }
  return { key, owner: 'self', ...nothing }
}

export function newJournal(facts: Omit<Journal, 'version'>): Journal {
  return { version: VERSION, ...facts }
}
