/**
 * Finds a trace in the store, whoever wrote it. With a bucket, the indexes under the trace's own
 * prefix are listed, and those not known yet are read into the local catalogue; whatever is asked
 * after that is answered by the catalogue. A directory's catalogue is shared by all who write into
 * it, so there is nothing to find.
 *
 * Costs one request where everything is known, and one more for each index that is not; where another
 * exporter has deleted something, one more for each file that it was in. Nothing is
 * incomplete in silence: what could not be read is in the answer, and it is an error when nothing at
 * all is known of the trace.
 */

import { asRing2Error, type Ring2Error } from '../errors.ts'
import { catalogLimits, indexLimits } from '../limits.ts'
import { indexPrefix } from '../store/keys.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Catalog } from './catalog.ts'
import { damagedIndex, decodeIndex } from './trace-index.ts'

export interface TraceFinder {
  /**
   * Brings what the bucket knows of the trace into the catalogue.
   *
   * @returns what could not be read; empty when the catalogue now knows all there is.
   * @throws Ring2Error RING2_E_STORE when nothing is known and the bucket cannot be read.
   */
  find(traceId: string): Promise<readonly Ring2Error[]>
}

export interface TraceFinderOptions {
  readonly catalog: Catalog
  /** Null for a directory store. */
  readonly bucket: ObjectStore | null
  /** Milliseconds of any clock that does not go back; tests set it. */
  readonly now?: () => number
}

export function createTraceFinder(options: TraceFinderOptions): TraceFinder {
  const { catalog, bucket } = options
  const now = options.now ?? (() => performance.now())
  const running = new Map<string, Promise<readonly Ring2Error[]>>()
  // Traces found a moment ago; the oldest first.
  const found = new Map<string, number>()

  async function look(store: ObjectStore, traceId: string): Promise<readonly Ring2Error[]> {
    const problems = await readIndexes(catalog, store, traceId)
    const [first] = problems
    const held = catalog.requests(traceId).length > 0
    if (first !== undefined && !held) throw first
    if (problems.length === 0 && held) remember(traceId)
    return problems
  }

  function remember(traceId: string): void {
    found.delete(traceId)
    found.set(traceId, now())
    const oldest = found.keys().next().value
    if (found.size > indexLimits.freshTracesMax && oldest !== undefined) found.delete(oldest)
  }

  async function find(traceId: string): Promise<readonly Ring2Error[]> {
    if (bucket === null) return []
    const foundAt = found.get(traceId)
    if (foundAt !== undefined && now() - foundAt < indexLimits.freshMillis) return []
    const looking = running.get(traceId) ?? look(bucket, traceId)
    running.set(traceId, looking)
    try {
      return await looking
    } finally {
      running.delete(traceId)
    }
  }

  return { find }
}

async function readIndexes(
  catalog: Catalog,
  bucket: ObjectStore,
  traceId: string,
): Promise<Ring2Error[]> {
  const problems: Ring2Error[] = []
  const listed = new Set<string>()
  try {
    const limit = catalogLimits.traceRequestsMax + 1
    for await (const { key } of bucket.list(indexPrefix(traceId), { limit })) listed.add(key)
  } catch (error) {
    return [asRing2Error(error)]
  }
  // What was listed is all there is: an index that is gone was replaced, or its request deleted.
  for (const { key, imported } of catalog.indexes.knownOfTrace(traceId)) {
    if (imported && !listed.has(key)) catalog.indexes.dropImported(key)
  }
  const replaced = catalog.indexes.knownOfTrace(traceId).filter(({ key }) => !listed.has(key))
  const unknown = [...listed].filter((key) => !catalog.indexes.isKnown(key))
  for (let start = 0; start < unknown.length; start += indexLimits.readsInFlight) {
    const batch = unknown.slice(start, start + indexLimits.readsInFlight)
    const read = await Promise.all(batch.map((key) => importOne(catalog, bucket, key)))
    problems.push(...read.filter((problem) => problem !== null))
  }
  if (problems.length > 0) return problems
  try {
    for (const { key } of replaced) await followReplaced(catalog, bucket, key)
  } catch (error) {
    problems.push(asRing2Error(error))
  }
  return problems
}

/**
 * An index that this exporter wrote has gone: another one has deleted something, and put other files
 * into the place of those that it was in. What is left of the request is in the indexes just read.
 */
async function followReplaced(catalog: Catalog, bucket: ObjectStore, key: string): Promise<void> {
  const missing: string[] = []
  for (const file of catalog.indexes.filesOfIndex(key)) {
    if ((await bucket.size(file)) === null) missing.push(file)
  }
  catalog.indexes.dropReplaced(key, missing)
}

async function importOne(
  catalog: Catalog,
  bucket: ObjectStore,
  key: string,
): Promise<Ring2Error | null> {
  try {
    const bytes = await bucket.read(key, indexLimits.bytesMax)
    // Replaced or deleted since it was listed.
    if (bytes === null) return null
    if (bytes.byteLength === 0) throw damagedIndex(key, 'an empty object')
    catalog.indexes.import(key, decodeIndex(key, bytes), Date.now() * 1000)
    return null
  } catch (error) {
    return asRing2Error(error)
  }
}
