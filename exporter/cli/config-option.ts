/** The options that every command with a configuration takes. */
import type { Command } from 'commander'
import { type LoadedConfig, loadConfig } from '../config.ts'

export interface ConfigOptions {
  readonly config?: string
  readonly store?: string
}

export function withConfig(command: Command): Command {
  return command
    .option('-c, --config <file>', 'YAML configuration (default: RING2_CONFIG, else none)')
    .option(
      '--store <url>',
      'directory or s3:// URL of the tensor store; wins over the configuration',
    )
}

export function configFrom(options: ConfigOptions): LoadedConfig {
  return loadConfig({
    ...(options.config === undefined ? {} : { file: options.config }),
    environment: process.env,
    overrides: options.store === undefined ? {} : { 'store.url': options.store },
  })
}
