/**
 * Whether everything of a deletion is in the store: a request that is still open, a file that waits in
 * the spool or for its upload would come back after it was deleted.
 *
 * Reads the state directory alone; the ring is not looked into, so a request of which nothing was ever
 * stored is not seen.
 */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { FileDescription } from '../catalog/description.ts'
import type { DeletionTarget } from '../catalog/removal.ts'
import { errorText, Ring2Error, storeError, systemCode } from '../errors.ts'
import { PARTIAL_SUFFIX } from '../parquet/file-writer.ts'
import { flatName } from '../store/keys.ts'
import type { StoreLocation } from '../store/location.ts'
import { deletionLimits } from './limits.ts'
import { targetTest } from './match.ts'

const CHECKPOINT_SUFFIX = '.checkpoint.json'
const DESCRIPTION_SUFFIX = '.json'

/** Waits a while until nothing is on its way. Throws RING2_E_UNSETTLED when something still is. */
export async function waitUntilSettled(
  location: StoreLocation,
  targets: readonly DeletionTarget[],
  keys: readonly string[],
  waitMillis: number = deletionLimits.settleMillisMax,
): Promise<void> {
  const end = performance.now() + waitMillis
  for (;;) {
    const reason = unsettled(location, targets, keys)
    if (reason === null) return
    if (performance.now() >= end) {
      throw new Ring2Error('RING2_E_UNSETTLED', {
        expected: 'ended requests whose files are all in the store',
        actual: reason,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, deletionLimits.settlePollMillis))
  }
}

/** What is still on its way, in words; null when nothing is. */
function unsettled(
  location: StoreLocation,
  targets: readonly DeletionTarget[],
  keys: readonly string[],
): string | null {
  const matches = targetTest(targets)
  const waiting = keys.find((key) => existsSync(join(location.queue, flatName(key))))
  if (waiting !== undefined) return `${waiting} waits for its upload`
  for (const entry of entriesOf(location.spool)) {
    const path = join(location.spool, entry)
    const reason = entry.endsWith(CHECKPOINT_SUFFIX)
      ? openRequest(path, matches)
      : preparedFile(path, matches)
    if (reason !== null) return reason
  }
  return null
}

type Matches = (traceId: string, requestId: string) => boolean

/** The checkpoint of a segment names the requests that had not ended at its last flush. */
function openRequest(path: string, matches: Matches): string | null {
  const checkpoint = readJson(path)
  const { requests = [] } = checkpoint?.registry ?? {}
  for (const { info } of requests) {
    if (matches(info.storedTraceId ?? info.traceId, info.requestId)) {
      return `the request ${JSON.stringify(info.requestId)} has not ended, or its end is not stored`
    }
  }
  return null
}

function preparedFile(folder: string, matches: Matches): string | null {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) return null
  const names = entriesOf(folder)
  const described = new Set(names.filter((name) => name.endsWith(DESCRIPTION_SUFFIX)))
  for (const name of names) {
    const path = join(folder, name)
    if (described.has(name)) {
      if (mentions(readJson(path), matches)) return `${path} is not in the store yet`
    } else if (!described.has(name + DESCRIPTION_SUFFIX) && existsSync(path)) {
      // Being written at this moment, or left by a crash: what it holds is not known.
      const kind = name.endsWith(PARTIAL_SUFFIX) ? 'is being written' : 'is not described'
      return `${path} ${kind}`
    }
  }
  return null
}

function mentions(description: FileDescription | null, matches: Matches): boolean {
  if (description === null) return false
  const { series, requests, aliases = [] } = description
  return (
    series.some((one) => matches(one.trace_id, one.request_id)) ||
    requests.some((one) => matches(one.trace_id, one.request_id)) ||
    aliases.some((one) => matches(one.stored_trace_id, one.request_id))
  )
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('read', folder, error)
  }
}

/** Null when the file has gone in the meantime. */
function readJson(path: string) {
  try {
    const { size } = statSync(path)
    if (size > deletionLimits.stateBytesMax) throw new Error(`${size} bytes`)
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw new Ring2Error('RING2_E_UNSETTLED', {
      expected: `a readable ${path}, to know whether part of this is on its way`,
      actual: errorText(error),
      action: 'Start the exporter, which mends or names what is wrong with it, and delete again.',
    })
  }
}
