/** `ring2-exporter catalog rebuild`: the catalogue again, from the Parquet files alone. */
import type { Command } from 'commander'
import { openStore } from '../store/open-store.ts'
import { storeLocation } from '../tensors/open.ts'
import { rebuildCatalog } from '../tensors/rebuild.ts'
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
  const { store } = await openStore(location)
  const terminal = process.stderr.isTTY === true
  const report = await rebuildCatalog(store, location.catalog, (done, total) => {
    if (terminal) process.stderr.write(`\r${done} of ${total} files`)
  })
  if (terminal) tell('')
  if (options.json === true) printJson(report)
  else print(`${report.files} files, ${report.rows} rows`)
  for (const { key, error } of report.damaged) tell(`passed over ${key}: ${error.message}`)
  return report.damaged.length > 0 ? exitCodes.incomplete : exitCodes.done
}
