/** `ring2-exporter demo`: a real model, end to end, on embedded defaults. */
import { once } from 'node:events'
import type { Command } from 'commander'
import { runDemo } from '../demo/demo.ts'
import { renderPage } from '../demo/report.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'

interface DemoCommandOptions extends ConfigOptions {
  readonly keep?: boolean
  readonly json?: boolean
}

export function demoCommand(command: Command): void {
  withConfig(command)
    .description('run a real model with the exporter beside it, and show what came out')
    .option('--keep', 'leave the service and the exporter running until Ctrl-C')
    .option('--json', 'print one JSON document')
    .action(async (options: DemoCommandOptions) => {
      process.exitCode = await demo(options)
    })
}

async function demo(options: DemoCommandOptions): Promise<number> {
  const result = await runDemo({
    store: configFrom(options).config.store.url,
    keep: options.keep === true,
    onProgress: tell,
  })
  if (options.json === true) printJson(result.document)
  else print(renderPage(result.page))
  if (options.keep === true) await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
  const orderly = await result.stop()
  if (!orderly) tell('a process of the demo did not end in order')
  return orderly && result.document.verified.equal ? exitCodes.done : exitCodes.failed
}
