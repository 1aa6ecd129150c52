/**
 * Removes what killed processes have left in the spool and no checkpoint names: nobody would ever
 * publish it, and every deletion would wait for it.
 *
 * The rows of such files are still in the ring, or gone with it; a segment has its checkpoint before
 * its first file, so files without one are nobody's. Two writers have none: imports, whose files are
 * left alone until nothing has been written to them for a while (the capture is imported again), and
 * contexts that came late (moved-requests.ts), whose complete files are published, which is harmless
 * to do twice.
 */
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { checkpointNames } from '../../collector/index.ts'
import { systemCode } from '../errors.ts'
import { producerSlug } from '../store/keys.ts'
import { describedFile, hasDescription, removeFolderIfEmpty } from '../tensors/spool.ts'
import type { ClosableTensorSink } from '../tensors/tensor-sink.ts'
import { pipelineLimits } from './limits.ts'

const CONTEXTS = /^contexts-(\d{1,10})$/
const IMPORT = /^import-[0-9a-f]{16}$/

/** @returns how many files were removed. Throws what the system refuses. */
export function clearSpool(spool: string, sink: ClosableTensorSink, now = Date.now()): number {
  // In this order: a segment's checkpoint is there before its folder is.
  const folders = foldersOf(spool)
  if (folders.length === 0) return 0
  const named = new Set(checkpointNames(spool).map(slugOf))
  let removed = 0
  for (const name of folders) {
    if (named.has(name)) continue
    const folder = join(spool, name)
    const owner = CONTEXTS.exec(name)?.[1]
    if (owner !== undefined) publishComplete(spool, name, sink)
    const inUse = owner === undefined ? IMPORT.test(name) : isOther(Number(owner))
    if (inUse && now - lastWritten(folder) <= pipelineLimits.spoolQuietMillis) continue
    removed += clearFolder(folder)
  }
  return removed
}

/** Goes by the descriptions: after a crash a file may be in the store and not in the catalogue yet. */
function publishComplete(spool: string, name: string, sink: ClosableTensorSink): void {
  for (const entry of readdirSync(join(spool, name))) {
    const file = describedFile(entry)
    if (file === null || !hasDescription(join(spool, name, file))) continue
    const outcome = sink.publish([`${name}/${file}`])
    // Tried again; what can never be published, because its file is gone, is removed.
    if (outcome.status === 'retryable') throw outcome.error
  }
}

/** @returns how many files there were, without their descriptions. */
function clearFolder(folder: string): number {
  const entries = readdirSync(folder)
  for (const entry of entries) rmSync(join(folder, entry), { force: true })
  removeFolderIfEmpty(folder)
  return entries.filter((entry) => describedFile(entry) === null).length
}

/** As the spool calls the folder of the producer of a checkpoint. */
function slugOf({ segment, boot }: { segment: string; boot: string }): string {
  return producerSlug({ segment, boot, host: '', pid: 0 })
}

function isOther(pid: number): boolean {
  if (pid === process.pid) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemCode(error) !== 'ESRCH'
  }
}

function foldersOf(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw error
  }
}

function lastWritten(folder: string): number {
  const paths = [folder, ...readdirSync(folder).map((entry) => join(folder, entry))]
  const times = paths.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0)
  return Math.max(...times)
}
