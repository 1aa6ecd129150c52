/** `ring2-exporter check`: validates the configuration and prints it resolved. */
import type { Command } from 'commander'
import { nativeFacts, planActions } from '../../collector/index.ts'
import { maskSecrets, printConfig } from '../config.ts'
import { storeLocation } from '../tensors/open.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'

interface CheckOptions extends ConfigOptions {
  readonly json?: boolean
}

export function checkCommand(command: Command): void {
  withConfig(command)
    .description('validate the configuration and print it resolved, with where each key came from')
    .option('--json', 'print one JSON document')
    .action((options: CheckOptions) => {
      const loaded = configFrom(options)
      // These two read more into a value than its type: hook names, and what a store URL means.
      planActions(loaded.config.capture)
      storeLocation(loaded.config)
      if (options.json === true) printJson(maskSecrets(loaded.config))
      else print(printConfig(loaded))
      const { version, isa } = nativeFacts()
      tell(`valid; native library ${version}, ${isa} kernels`)
      process.exitCode = exitCodes.done
    })
}
