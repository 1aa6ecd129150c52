/** `ring2-exporter delete TRACE_ID`: removes a trace, or one request of it, for good. */
import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { Ring2Error } from '../errors.ts'
import type { DeletionContext } from '../retention/context.ts'
import {
  type DeletionPreview,
  type DeletionReport,
  deleteTrace,
  hasUnfinished,
  previewDeletion,
} from '../retention/delete-trace.ts'
import { openDeletion } from '../retention/open.ts'
import { parseTraceId } from '../tensors/selection.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'
import { bytesText, counted } from './table.ts'

interface DeleteOptions extends ConfigOptions {
  readonly request?: string
  readonly yes?: boolean
  readonly json?: boolean
}

export function deleteCommand(command: Command): void {
  withConfig(command)
    .description('delete a trace, or one request of it, so that nothing of it remains in the store')
    .argument('<trace_id>', 'as the rows have it, or as the caller has it')
    .option('--request <id>', 'only this request of the trace')
    .option('--yes', 'do not ask')
    .option('--json', 'print one JSON document, shaped as DELETE /v1/traces/{trace_id} of the API')
    .action(async (traceId: string, options: DeleteOptions) => {
      process.exitCode = await run(traceId, options)
    })
}

async function run(text: string, options: DeleteOptions): Promise<number> {
  const traceId = parseTraceId(text)
  const requestId = options.request ?? null
  const { config } = configFrom(options)
  const { context, close } = await openDeletion(config)
  try {
    if (options.yes !== true && !(await confirmed(context, traceId, requestId))) {
      tell('nothing was deleted')
      return exitCodes.failed
    }
    const report = await deleteTrace(context, traceId, requestId)
    if (options.json === true) printJson(report)
    else print(reportText(report))
    return exitCodes.done
  } finally {
    close()
  }
}

/** What was begun before is finished without asking again. */
async function confirmed(
  context: DeletionContext,
  traceId: string,
  requestId: string | null,
): Promise<boolean> {
  const preview = await previewDeletion(context, traceId, requestId)
  if (preview === null) return true
  if (process.stdin.isTTY !== true) {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: '--yes, where nobody can be asked',
      actual: 'standard input is no terminal',
    })
  }
  if (hasUnfinished(context.location)) tell('a deletion that was interrupted is finished first')
  tell(previewText(preview))
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y(es)?$/i.test((await prompt.question('Delete them for good? [y/N] ')).trim())
  } finally {
    prompt.close()
  }
}

function previewText({ requests, files }: DeletionPreview): string {
  const lines = requests.map((one) => `${one.trace_id}  ${one.request_id}`)
  return [...lines, `in up to ${counted(files, 'file')}`].join('\n')
}

function reportText(report: DeletionReport): string {
  const { requests, tensors, bytes, files_removed, files_rewritten } = report
  const what = `${counted(requests, 'request')}, ${counted(tensors, 'tensor')} (${bytesText(bytes)})`
  const files = `${counted(files_removed, 'file')}, of which ${files_rewritten} written again for others`
  return `deleted ${what}: ${files}${report.resumed ? '; it had been begun before' : ''}`
}
