/** The store of a configuration, opened for reading: catalogue, files and the reader over them. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Catalog, knownFileOf, openCatalogOf } from '../catalog/catalog.ts'
import { createTraceFinder } from '../catalog/trace-finder.ts'
import type { Config } from '../config.ts'
import { Ring2Error } from '../errors.ts'
import { createParquetSource } from '../parquet/parquet-source.ts'
import { datasets } from '../store/keys.ts'
import { locateStore, type StoreLocation } from '../store/location.ts'
import { openStore } from '../store/open-store.ts'
import { createTensorReader, type TensorReader } from './reader.ts'

export interface OpenedTensors {
  readonly catalog: Catalog
  readonly reader: TensorReader
}

/** False too for what is no folder: a file in the way is told by the first flush, which waits. */
function hasEntries(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false })
  return found?.isDirectory() === true && readdirSync(path).length > 0
}

/** The error for a catalogue that names no file beside a directory that has some; else null. */
export function catalogDoubt({ target, catalog: path }: StoreLocation, catalog: Catalog) {
  if (target.kind !== 'directory' || !catalog.isEmpty()) return null
  const folder = datasets.map((name) => join(target.root, name)).find(hasEntries)
  if (folder === undefined) return null
  return new Ring2Error('RING2_E_STORE', {
    expected: `the files of ${folder} in the catalogue ${path}`,
    actual: 'it names no file',
    action: 'Run `ring2-exporter catalog rebuild`; the Parquet files hold everything.',
  })
}

export function storeLocation(config: Config): StoreLocation {
  return locateStore(config.store.url, config.store.spool)
}

/**
 * The store, for questions about one trace: what any exporter of a bucket stored of it is found, also
 * where this machine has no catalogue yet.
 *
 * @param tell called with what could not be read, while the rest is answered.
 * @throws Ring2Error RING2_E_STORE when there is no catalogue of a directory, or nothing is known of
 *   the trace and the bucket cannot be read.
 */
export async function openTrace(
  config: Config,
  traceId: string,
  tell: (problem: Ring2Error) => void,
): Promise<OpenedTensors> {
  const { bucket, ...opened } = await open(config, true)
  try {
    const finder = createTraceFinder({ catalog: opened.catalog, bucket })
    for (const problem of await finder.find(traceId)) tell(problem)
    return opened
  } catch (error) {
    opened.catalog.close()
    throw error
  }
}

function notThere({ target }: StoreLocation): string {
  if (target.kind !== 'directory') return 'no such file'
  const stats = statSync(target.root, { throwIfNoEntry: false })
  if (stats === undefined) return `no such folder as ${target.root}`
  return stats.isDirectory()
    ? 'no such file'
    : `${target.root} is a file, not the folder of a store`
}

/** @throws Ring2Error RING2_E_STORE when there is no catalogue at that place. */
export async function openTensors(config: Config): Promise<OpenedTensors> {
  const { bucket: _, ...opened } = await open(config, false)
  return opened
}

async function open(config: Config, found: boolean) {
  const location = storeLocation(config)
  const isBucket = location.target.kind === 's3'
  if (!existsSync(location.catalog) && !(isBucket && found)) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `a catalogue at ${location.catalog}`,
      actual: notThere(location),
      action:
        'Name the store with --store or store.url; `ring2-exporter catalog rebuild` makes the catalogue of a store that has none.',
    })
  }
  const { store, bucket } = await openStore(location)
  const catalog = openCatalogOf(location)
  const doubt = catalogDoubt(location, catalog)
  if (doubt !== null) {
    catalog.close()
    throw doubt
  }
  return {
    bucket,
    catalog,
    reader: createTensorReader({
      catalog,
      source: createParquetSource(store, { knownFile: knownFileOf(catalog) }),
    }),
  }
}
