/** `ring2-exporter import`: captures of STRAP-LLM into the store. */
import type { Command } from 'commander'
import { Option } from 'commander'
import type { Config } from '../config.ts'
import { type ImportReport, importStream } from '../import/import-stream.ts'
import { type StreamCodec, streamCodecs } from '../import/stream-payload.ts'
import { importLimits } from '../limits.ts'
import { openStore } from '../store/open-store.ts'
import { createUploader } from '../store/uploader.ts'
import { storeLocation } from '../tensors/open.ts'
import { parseTraceId } from '../tensors/selection.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'
import { counted } from './table.ts'

interface Options extends ConfigOptions {
  readonly model: string
  readonly trace?: string
  readonly tokens?: string
  readonly dtype: string
  readonly codec?: StreamCodec
  readonly json?: boolean
}

const dtypes = ['float16', 'bfloat16', 'float32', 'float64']

export function importCommand(command: Command): void {
  withConfig(command)
    .description('import a STRAP-LLM .stream capture into the store')
    .argument('<file>', 'the capture')
    .option('--model <name>', 'name of the model that was captured', 'strap-llm')
    .option('--trace <id>', 'trace id to keep it under (default: made from its content)')
    .option('--tokens <file>', 'the _tokens.json beside it')
    .addOption(
      new Option('--dtype <type>', 'type of its elements').choices(dtypes).default('float16'),
    )
    .addOption(
      new Option(
        '--codec <codec>',
        'its compression (default: what the first packet shows)',
      ).choices(streamCodecs),
    )
    .option('--json', 'print one JSON document')
    .action(async (file: string, options: Options, own: Command) => {
      process.exitCode = await run(file, options, own)
    })
}

async function run(file: string, options: Options, command: Command): Promise<number> {
  const traceId = options.trace === undefined ? null : parseTraceId(options.trace)
  const { config } = configFrom(options)
  const modelGiven = command.getOptionValueSource('model') === 'cli'
  const report = importStream(config, {
    file,
    model: options.model,
    traceId,
    tokens: options.tokens ?? null,
    dtype: options.dtype,
    codec: options.codec ?? null,
  })
  const waiting = await upload(config)
  if (options.json === true) printJson({ ...report, files_waiting: waiting })
  else show(file, report)
  warn(report, waiting)
  if (report.already_imported) warnIgnored(report, options, modelGiven)
  if (waiting > 0) return exitCodes.failed
  return report.torn_bytes + report.damaged_packets > 0 ? exitCodes.incomplete : exitCodes.done
}

/** Files that are still to go into the bucket; a running exporter of the same spool takes them on. */
async function upload(config: Config): Promise<number> {
  const location = storeLocation(config)
  const { bucket } = await openStore(location)
  if (bucket === null) return 0
  const uploader = createUploader({
    queue: location.queue,
    bucket,
    onError: (error, key) => tell(`${key}: ${error.message}`),
  })
  const left = await uploader.flush(importLimits.uploadMillisMax)
  await uploader.stop()
  return left
}

function show(file: string, report: ImportReport): void {
  const done = report.already_imported ? 'is in the store already' : 'imported'
  print(
    `${file} ${done}: ${counted(report.packets, 'packet')} (${report.codec}), ${report.bytes} bytes`,
  )
  print(`trace ${report.trace_id}  request ${report.request_id}  model ${report.model}`)
  for (const { module, hook, packets, entries, width } of report.modules) {
    print(
      `  ${hook}  ${counted(packets, 'packet')}  [${entries}, ${width}]  module ${JSON.stringify(module)}`,
    )
  }
  if (report.token_ids > 0) print(`  token_ids  1 row  [${report.token_ids}]  from --tokens`)
}

function warn(report: ImportReport, waiting: number): void {
  if (report.torn_bytes > 0)
    tell(`torn tail: ${counted(report.torn_bytes, 'byte')} of no whole packet`)
  if (report.padding_bytes > 0) tell(`${counted(report.padding_bytes, 'byte')} of NUL at the end`)
  if (report.damaged_packets > 0)
    tell(`${counted(report.damaged_packets, 'packet')} could not be read`)
  if (waiting > 0) tell(`${counted(waiting, 'file')} still to go into the bucket`)
}

/** What was asked for of a capture that the store has; the store keeps what it has. */
function warnIgnored(report: ImportReport, options: Options, modelGiven: boolean): void {
  const ignored = [
    ...(modelGiven && options.model !== report.model ? [`--model ${options.model}`] : []),
    ...(options.tokens === undefined ? [] : [`--tokens ${options.tokens}`]),
  ]
  if (ignored.length === 0) return
  const remove = `ring2-exporter delete ${report.trace_id} --request ${report.request_id}`
  tell(`stored before, and left as it is: ${ignored.join(' and ')} not applied`)
  tell(`to import it anew, run \`${remove}\` first`)
}
