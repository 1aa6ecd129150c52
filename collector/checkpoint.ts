/**
 * What a restarted exporter needs to go on exactly where this one stopped.
 *
 * One small file per segment, replaced atomically. It is the commit point of a flush: files are
 * prepared, then named here together with the ring position they reach, then published, then the
 * ring is released. Whichever of these a crash falls between, every record is stored once.
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
import { join } from 'node:path'
import type { StoredControl } from './control-book.ts'
import { Ring2Error } from './errors.ts'
import type { Outcome, ProducerInfo } from './records.ts'
import type { StoredRegistry } from './requests.ts'

const version = 1
const suffix = '.checkpoint.json'

export interface Checkpoint {
  readonly version: number
  readonly segment: string
  readonly boot: string
  /** Where the segment is: another machine's segments are none of ours. */
  readonly host: string
  readonly directory: string
  readonly pid: number
  /** Meta position: everything below is safe. */
  readonly position: number
  /** Prepared files of this flush: to be published if that has not happened. */
  readonly files: readonly string[]
  /** STEP bodies (base64) whose tensors may lie at or beyond `position`. */
  readonly steps: readonly string[]
  readonly registry: StoredRegistry
  /** What the producer was told to want; left out by older exporters. */
  readonly controls?: readonly StoredControl[]
}

/** What the writer of a checkpoint tells; the rest is the producer's. */
export type CheckpointFacts = Omit<Checkpoint, 'version' | keyof ProducerInfo>

/** What tells two lives of one name apart. */
type Life = Pick<ProducerInfo, 'segment' | 'boot'>

export function checkpointPath(directory: string, producer: Life): string {
  return join(directory, `${producer.segment}-${producer.boot}${suffix}`)
}

/** null when there is none. A damaged one is an error: to start over would store rows twice. */
export function readCheckpoint(directory: string, producer: Life): Checkpoint | null {
  const path = checkpointPath(directory, producer)
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw damaged(path, cause)
  }
  try {
    const checkpoint = JSON.parse(text) as Checkpoint
    if (checkpoint.version !== version) throw new Error(`version ${checkpoint.version}`)
    if (checkpoint.boot !== producer.boot) throw new Error(`boot ${checkpoint.boot}`)
    return checkpoint
  } catch (cause) {
    throw damaged(path, cause)
  }
}

function damaged(path: string, cause: unknown): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a readable checkpoint of version ${version} at ${path}`,
    actual: cause instanceof Error ? cause.message : String(cause),
    action:
      'Remove the file to drain the segment from what it still holds; rows may then be stored twice.',
    cause,
  })
}

export function writeCheckpoint(
  directory: string,
  producer: ProducerInfo,
  facts: CheckpointFacts,
  fsync: boolean,
): Outcome<void> {
  const path = checkpointPath(directory, producer)
  const temporary = `${path}.tmp`
  const checkpoint: Checkpoint = {
    version,
    ...producer,
    ...facts,
  }
  try {
    mkdirSync(directory, { recursive: true })
    const file = openSync(temporary, 'w', 0o600)
    try {
      // All of it or an error: one write may be cut short by a full disk.
      writeFileSync(file, JSON.stringify(checkpoint))
      if (fsync) fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
    if (fsync) syncFolder(directory)
    return { status: 'success', value: undefined }
  } catch (cause) {
    removeQuietly(temporary)
    return {
      status: 'retryable',
      error: new Ring2Error('RING2_E_STORE', {
        expected: `to write the checkpoint ${path}`,
        actual: cause instanceof Error ? cause.message : String(cause),
        cause,
      }),
    }
  }
}

/** Waits until the disk has the entries of a folder: a rename is one of them. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

/** Frees what a full disk did take; where even that fails, the next write replaces it. */
function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch {
    // The error that led here says more.
  }
}

/** Whose checkpoints there are, by their file names: a damaged one counts too. */
export function checkpointNames(stateDirectory: string): { segment: string; boot: string }[] {
  const names = readdirSync(stateDirectory).filter((name) => name.endsWith(suffix))
  return names.map((name) => {
    const producer = name.slice(0, -suffix.length)
    const dash = producer.lastIndexOf('-')
    return { segment: producer.slice(0, dash), boot: producer.slice(dash + 1) }
  })
}

/** Checkpoints of segments of this host and directory that are no longer there. */
export function orphanedCheckpoints(
  stateDirectory: string,
  host: string,
  directory: string,
  boots: ReadonlySet<string>,
): Checkpoint[] {
  let names: string[]
  try {
    names = readdirSync(stateDirectory).filter((name) => name.endsWith(suffix))
  } catch {
    // No state yet.
    return []
  }
  return names.flatMap((name) => {
    try {
      const checkpoint = JSON.parse(readFileSync(join(stateDirectory, name), 'utf8')) as Checkpoint
      const ours = checkpoint.host === host && checkpoint.directory === directory
      return ours && checkpoint.version === version && !boots.has(checkpoint.boot)
        ? [checkpoint]
        : []
    } catch {
      // A damaged one is reported when its own segment is taken.
      return []
    }
  })
}

export function removeCheckpoint(directory: string, producer: ProducerInfo): void {
  rmSync(checkpointPath(directory, producer), { force: true })
}
