/** The store of a configuration, opened for reading: catalogue, files and the reader over them. */
import { existsSync } from 'node:fs'
import { crc32c } from '../../collector/index.ts'
import type { Config } from '../config.ts'
import { Ring2Error } from '../errors.ts'
import { locateStore, type StoreLocation } from '../store/location.ts'
import { openStore } from '../store/open-store.ts'
import { type Catalog, knownFileOf, openCatalogOf } from './catalog.ts'
import { createParquetSource } from './parquet-source.ts'
import { createTensorReader, type TensorReader } from './reader.ts'

export interface OpenedTensors {
  readonly catalog: Catalog
  readonly reader: TensorReader
}

export function storeLocation(config: Config): StoreLocation {
  return locateStore(config.store.url, config.store.spool)
}

/** @throws Ring2Error RING2_E_STORE when there is no catalogue at that place. */
export async function openTensors(config: Config): Promise<OpenedTensors> {
  const location = storeLocation(config)
  if (!existsSync(location.catalog)) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `a catalogue at ${location.catalog}`,
      actual: 'no such file',
      action:
        'Name the store with --store or store.url; `ring2-exporter catalog rebuild` makes the catalogue of a store that has none.',
    })
  }
  const { store } = await openStore(location)
  const catalog = openCatalogOf(location)
  return {
    catalog,
    reader: createTensorReader({
      catalog,
      source: createParquetSource(store, { knownFile: knownFileOf(catalog) }),
      crc32c,
    }),
  }
}
