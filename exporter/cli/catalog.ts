/** `ring2-exporter catalog rebuild`: the catalogue again, from the Parquet files alone. */
import type { Command } from 'commander'
import { openCatalogOf } from '../catalog/catalog.ts'
import { rebuildCatalog } from '../catalog/rebuild.ts'
import { rebuildIndexes } from '../catalog/trace-rebuild.ts'
import type { StoreLocation } from '../store/location.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { openStore } from '../store/open-store.ts'
import { storeLocation } from '../tensors/open.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'

interface RebuildOptions extends ConfigOptions {
  readonly json?: boolean
}

export function catalogCommand(command: Command): void {
  command.description('look after the catalogue of the store')
  withConfig(command.command('rebuild'))
    .description('make the catalogue again from the Parquet files alone')
    .option('--json', 'print one JSON document')
    .action(async (options: RebuildOptions) => {
      process.exitCode = await rebuild(options)
    })
}

async function rebuild(options: RebuildOptions): Promise<number> {
  const location = storeLocation(configFrom(options).config)
  const { store, bucket } = await openStore(location)
  const terminal = process.stderr.isTTY === true
  const report = await rebuildCatalog(store, location.catalog, (done, total) => {
    if (terminal) process.stderr.write(`\r${done} of ${total} files`)
  })
  if (terminal) tell('')
  const indexes = bucket === null ? null : await writeIndexes(location, bucket)
  if (options.json === true) printJson({ ...report, indexes })
  else print(`${report.files} files, ${report.rows} rows`)
  for (const { key, error } of report.damaged) tell(`passed over ${key}: ${error.message}`)
  for (const error of indexes?.errors ?? []) tell(`trace indexes: ${error.message}`)
  if (indexes !== null && indexes.due > 0)
    tell(`${indexes.due} trace indexes are still to be written`)
  const whole = report.damaged.length === 0 && (indexes?.errors.length ?? 0) === 0
  return whole ? exitCodes.done : exitCodes.incomplete
}

/** By these a trace of the bucket is found from other machines. */
async function writeIndexes(location: StoreLocation, bucket: ObjectStore) {
  const catalog = openCatalogOf(location)
  try {
    return await rebuildIndexes(catalog, bucket, location.queue)
  } finally {
    catalog.close()
  }
}
