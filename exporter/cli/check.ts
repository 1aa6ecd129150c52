/**
 * `ring2-exporter check`: validates the configuration and prints it resolved.
 *
 * What `run` refuses before it opens anything is refused here too. A damaged file of baselines stops
 * no running exporter, but leaves every request without an `ok`: before a start it is an error.
 */
import type { Command } from 'commander'
import { nativeFacts, planCapture, policyOf } from '../../collector/index.ts'
import { readBaselines } from '../baselines.ts'
import { unknownVariables } from '../config/unknown-variables.ts'
import { type LoadedConfig, maskSecrets, printConfig } from '../config.ts'
import { decideOtlp } from '../telemetry/otlp-decision.ts'
import { storeLocation } from '../tensors/open.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { type ExitCode, exitCodes, print, printJson, showError, tell } from './outcome.ts'

interface CheckOptions extends ConfigOptions {
  readonly json?: boolean
}

export function checkCommand(command: Command): void {
  withConfig(command)
    .description('validate the configuration and print it resolved, with where each key came from')
    .option('--json', 'print one JSON document')
    .action((options: CheckOptions) => {
      process.exitCode = check(configFrom(options), options.json === true)
    })
}

function check(loaded: LoadedConfig, asJson: boolean): ExitCode {
  const { config } = loaded
  // These read more into a value than its type: hook names, what a store URL means, and variables.
  planCapture(policyOf(config.capture))
  storeLocation(config)
  const { reason } = decideOtlp(config.telemetry, process.env)
  try {
    readBaselines(config.verdict.baselines)
  } catch (error) {
    showError(error)
    return exitCodes.usage
  }
  if (asJson) printJson(maskSecrets(config))
  else print(printConfig(loaded))
  const { version, isa } = nativeFacts()
  tell(`valid; native library ${version}, ${isa} kernels`)
  tell(reason)
  for (const { variable, nearest } of unknownVariables(process.env)) {
    tell(`nothing reads the variable ${variable}; ${nearest} is the one most like it`)
  }
  return exitCodes.done
}
