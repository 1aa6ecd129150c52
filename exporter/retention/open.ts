/** The store of a configuration, opened for removing from it. */

import { existsSync } from 'node:fs'
import { openCatalogOf } from '../catalog/catalog.ts'
import type { Config } from '../config.ts'
import { Ring2Error } from '../errors.ts'
import { openStore } from '../store/open-store.ts'
import { storeLocation } from '../tensors/open.ts'
import type { DeletionContext } from './context.ts'

export interface OpenedDeletion {
  readonly context: DeletionContext
  close(): void
}

/** @throws Ring2Error RING2_E_STORE when there is no catalogue at that place. */
export async function openDeletion(config: Config): Promise<OpenedDeletion> {
  const location = storeLocation(config)
  if (!existsSync(location.catalog)) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `a catalogue at ${location.catalog}`,
      actual: 'no such file',
      action:
        'Name the store with --store or store.url; `ring2-exporter catalog rebuild` makes the catalogue of a store that has none.',
    })
  }
  const { store, bucket } = await openStore(location)
  const catalog = openCatalogOf(location, config.store.fsync)
  return {
    context: { location, store, bucket, catalog, fsync: config.store.fsync },
    close() {
      catalog.close()
      store.close()
    },
  }
}
