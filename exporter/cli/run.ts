/** `ring2-exporter run`: the service, until SIGTERM or SIGINT. */
import type { Command } from 'commander'
import { unknownVariables } from '../config/unknown-variables.ts'
import { createLogger } from '../logging.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes } from './outcome.ts'

export function runCommand(command: Command): void {
  withConfig(command)
    .description('drain, export, store and serve, until SIGTERM')
    .action(async (options: ConfigOptions) => {
      process.exitCode = await run(options)
    })
}

async function run(options: ConfigOptions): Promise<number> {
  const ended = Promise.withResolvers<string>()
  // Before anything is started: a signal during the start ends in order too.
  process.once('SIGTERM', () => ended.resolve('SIGTERM'))
  process.once('SIGINT', () => ended.resolve('SIGINT'))
  const { config } = configFrom(options)
  const logger = createLogger(config.log)
  for (const unknown of unknownVariables(process.env)) {
    logger.warn(unknown, 'nothing reads this environment variable')
  }
  // Loaded here alone: the other commands need neither the server nor telemetry, and start sooner.
  const { startService } = await import('../service.ts')
  const service = await startService({ config, logger, onDefect: () => ended.resolve('a defect') })
  const why = await ended.promise
  logger.info({ why }, 'stopping')
  // A second signal does not wait for an orderly end.
  process.once('SIGINT', () => process.exit(exitCodes.failed))
  const clean = await service.stop()
  return clean && why !== 'a defect' ? exitCodes.done : exitCodes.failed
}
