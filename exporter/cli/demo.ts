/** `ring2-exporter demo`: a real model, end to end, on embedded defaults. */
import { once } from 'node:events'
import { constants } from 'node:os'
import { type Command, Option } from 'commander'
import { runDemo } from '../demo/demo.ts'
import type { DemoDocument } from '../demo/document.ts'
import { type EngineName, engineNames, engines } from '../demo/engines.ts'
import { renderPage } from '../demo/report.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'

interface DemoCommandOptions extends ConfigOptions {
  readonly engine: EngineName
  readonly stack?: boolean
  readonly keep?: boolean
  readonly json?: boolean
}

export function demoCommand(command: Command): void {
  withConfig(command)
    .description('run a real model with the exporter beside it, and show what came out')
    .addOption(
      new Option('--engine <name>', 'what runs the model')
        .choices(engineNames)
        .default('transformers'),
    )
    .option('--stack', 'let the real Collector, Jaeger, Prometheus and Alertmanager watch')
    .option('--keep', 'leave everything running until Ctrl-C')
    .option('--json', 'print one JSON document')
    .action(async (options: DemoCommandOptions) => {
      process.exitCode = await demo(options)
    })
}

async function demo(options: DemoCommandOptions): Promise<number> {
  for (const signal of endingSignals) process.once(signal, interrupted)
  const result = await runDemo({
    store: configFrom(options).config.store.url,
    engine: options.engine,
    stack: options.stack === true,
    keep: options.keep === true,
    onProgress: tell,
  })
  for (const signal of endingSignals) process.off(signal, interrupted)
  if (options.json === true) printJson(result.document)
  else print(renderPage(result.page))
  if (options.keep === true) await Promise.race(endingSignals.map((one) => once(process, one)))
  const orderly = await result.stop()
  return orderly && isGood(result.document, options.engine) ? exitCodes.done : exitCodes.failed
}

/** The last one when its terminal is closed. */
const endingSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Before the demo has finished: its processes end with this one, and there is nothing to show. */
function interrupted(signal: NodeJS.Signals): void {
  process.exit(128 + constants.signals[signal])
}

/** What is read back must be what was held, and the servers must have seen what the demo is about. */
function isGood(
  { verified, jaeger, prometheus, alerts }: DemoDocument,
  engine: EngineName,
): boolean {
  if (!verified.equal) return false
  if (jaeger === undefined || prometheus === undefined || alerts === undefined) return true
  return (
    jaeger.under_app &&
    prometheus.native_histograms > 0 &&
    prometheus.exemplar_trace_ids.length > 0 &&
    (alerts.fired.length > 0 || !engines[engine].breakable) &&
    alerts.silent_before
  )
}
