/** `ring2-exporter ls`: the requests that the store keeps, newest first. */
import type { Command } from 'commander'
import type { CatalogRequest } from '../tensors/catalog-list.ts'
import { openTensors } from '../tensors/open.ts'
import { parseLimit, parseSince, parseVerdict } from '../tensors/selection.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson } from './outcome.ts'
import { bytesText, styles, table } from './table.ts'

interface LsOptions extends ConfigOptions {
  readonly since?: string
  readonly model?: string
  readonly verdict?: string
  readonly limit: string
  readonly json?: boolean
}

export function lsCommand(command: Command): void {
  withConfig(command)
    .description('list the requests kept: trace id, model, tokens, verdict, bytes')
    .option('--since <time>', 'a duration such as 1h, or a time such as 2026-01-31T12:00:00Z')
    .option('--model <name>', 'only requests of this model')
    .option('--verdict <verdict>', 'only requests with this verdict: ok, nonfinite, unknown')
    .option('--limit <count>', 'at most this many', '50')
    .option('--json', 'print one JSON document')
    .action(async (options: LsOptions) => {
      process.exitCode = await ls(options)
    })
}

async function ls(options: LsOptions): Promise<number> {
  const { config } = configFrom(options)
  const { catalog } = await openTensors(config)
  const page = catalog.list({
    ...(options.since === undefined ? {} : { sinceMicros: parseSince(options.since, Date.now()) }),
    ...(options.model === undefined ? {} : { model: options.model }),
    ...(options.verdict === undefined ? {} : { verdict: parseVerdict(options.verdict) }),
    limit: parseLimit(options.limit),
  })
  catalog.close()
  if (options.json === true) printJson({ requests: page.requests.map(asDocument) })
  else print(asTable(page.requests))
  return exitCodes.done
}

function asDocument({ summary, ...request }: CatalogRequest): Record<string, unknown> {
  return { ...request, summary: summary === null ? null : JSON.parse(summary) }
}

function asTable(requests: readonly CatalogRequest[]): string {
  return table(
    [
      { title: 'STARTED' },
      { title: 'TRACE ID' },
      { title: 'REQUEST' },
      { title: 'MODEL' },
      { title: 'TOKENS', right: true },
      { title: 'VERDICT' },
      { title: 'COMPLETENESS' },
      { title: 'BYTES', right: true },
    ],
    requests.map((request) => [
      new Date(request.started_at / 1000).toISOString().slice(0, 19).replace('T', ' '),
      request.trace_id,
      request.request_id,
      request.model,
      String(request.tokens ?? '–'),
      request.verdict,
      request.completeness,
      bytesText(request.bytes_stored),
    ]),
    styles().bold,
  )
}
