/** `ring2-exporter ls`: the requests that the store keeps, newest first. */
import { type Command, Option } from 'commander'
import { verdicts } from '../../collector/records.ts'
import { requestView, traceView } from '../api/views.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import { openTensors, openTrace } from '../tensors/open.ts'
import { parseLimit, parseSince, parseTraceId, parseVerdict } from '../tensors/selection.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { heldOf, heldTable, verdictLines } from './ls-trace.ts'
import { exitCodes, print, printJson, tell, tellLocalOnly } from './outcome.ts'
import { bytesText, styles, table } from './table.ts'

interface LsOptions extends ConfigOptions {
  readonly since?: string
  readonly model?: string
  readonly verdict?: string
  readonly bad?: boolean
  readonly limit?: string
  readonly json?: boolean
}

export function lsCommand(command: Command): void {
  withConfig(command)
    .description(
      'list the requests kept: trace id, model, tokens, verdict, bytes (of the decoded elements)',
    )
    .argument('[trace_id]', 'only this trace: its requests, and the hooks and layers each has')
    .option('--since <time>', 'a duration such as 1h, or a time such as 2026-01-31T12:00:00Z')
    .option('--model <name>', 'only requests of this model')
    .option('--verdict <verdict>', `only requests with this verdict: ${verdicts.join(', ')}`)
    .addOption(
      new Option('--bad', 'only requests with a finding: neither ok nor unknown').conflicts(
        'verdict',
      ),
    )
    .option('--limit <count>', `at most this many (default: ${catalogLimits.pageRowsDefault})`)
    .option('--json', 'print one JSON document, shaped as GET /v1/traces of the API')
    .action(async (traceId: string | undefined, options: LsOptions) => {
      process.exitCode = await ls(traceId, options)
    })
}

async function ls(traceId: string | undefined, options: LsOptions): Promise<number> {
  if (traceId !== undefined) return lsTrace(traceId, options)
  const { config } = configFrom(options)
  const filter = {
    ...(options.since === undefined ? {} : { sinceMicros: parseSince(options.since, Date.now()) }),
    ...(options.model === undefined ? {} : { model: options.model }),
    ...(options.verdict === undefined ? {} : { verdict: parseVerdict(options.verdict) }),
    ...(options.bad === undefined ? {} : { bad: options.bad }),
  }
  const limit = parseLimit(options.limit ?? String(catalogLimits.pageRowsDefault))
  const { catalog } = await openTensors(config)
  const page = catalog.list({ ...filter, limit })
  const own = !catalog.isEmpty()
  catalog.close()
  if (!own && config.store.url.startsWith('s3://')) {
    tell('only traces that were fetched here are listed; `catalog rebuild` reads the whole bucket')
  }
  if (options.json === true) {
    const traces = page.requests.map(requestView)
    // Nothing found may be another store than was meant, so it is named.
    printJson({ store: config.store.url, traces, next_cursor: page.nextCursor })
  } else if (page.requests.length > 0) print(asTable(page.requests))
  else {
    const fitting = Object.keys(filter).length > 0 ? ' that fit the filters' : ''
    tell(`no requests${fitting} kept in ${config.store.url}`)
  }
  return exitCodes.done
}

async function lsTrace(given: string, options: LsOptions): Promise<number> {
  const traceId = parseTraceId(given)
  for (const name of ['since', 'model', 'verdict', 'bad', 'limit'] as const) {
    if (options[name] === undefined) continue
    throw new Ring2Error('RING2_E_QUERY', {
      expected: 'a trace id alone: filters are for the list of all requests',
      actual: name === 'bad' ? '--bad' : `--${name} ${options[name]}`,
    })
  }
  const { config } = configFrom(options)
  const { catalog } = await openTrace(config, traceId, tellLocalOnly)
  try {
    const held = heldOf(catalog, traceId)
    if (options.json === true) {
      const requests = held.map(({ request }) => request)
      const view = traceView(traceId, requests, catalog.series({ traceId }))
      printJson({ store: config.store.url, ...view })
    } else {
      print(heldTable(held))
      print(['', ...verdictLines(held)].join('\n'))
    }
    return exitCodes.done
  } finally {
    catalog.close()
  }
}

function asTable(requests: readonly CatalogRequest[]): string {
  return table(
    [
      { title: 'STARTED (UTC)' },
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
      request.caller_trace_id ?? request.trace_id,
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
