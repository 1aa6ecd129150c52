/**
 * `ring2-exporter fetch`: tensors of a trace, stitched over steps, as files or on standard output.
 *
 * Of several tensors those whose payloads were left out are passed over and named on standard error;
 * whatever ends the command early, what was written by then is listed.
 */
import type { Command } from 'commander'
import { hooks } from '../../collector/index.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { producersMeant } from '../catalog/parallel.ts'
import { Ring2Error } from '../errors.ts'
import { type TensorFormat, tensorFormats } from '../tensors/formats.ts'
import { openTrace } from '../tensors/open.ts'
import type { OpenedTensor, TensorReader } from '../tensors/reader.ts'
import {
  parseHeads,
  parseHook,
  parseLayer,
  parseRank,
  parseTokens,
  parseTraceId,
  type TensorQuery,
  type TokenRange,
} from '../tensors/selection.ts'
import { answerOf } from '../tensors/tensor-facts.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import {
  checkOutputCount,
  type OutputOptions,
  outputFormat,
  outputPath,
  showProgress,
  writeOutput,
} from './fetch-output.ts'
import { exitCodes, print, printJson, tell, tellLocalOnly } from './outcome.ts'

/** Ranges of missing positions on a line for people; `--json` has all. */
const gapsShown = 8

interface FetchOptions extends ConfigOptions, OutputOptions {
  readonly hook?: string
  readonly layer?: string
  readonly tokens?: string
  readonly heads?: string
  readonly rank?: string
  readonly producer?: string
  readonly request?: string
  readonly requireComplete?: boolean
  readonly json?: boolean
}

/** What was fetched, as `--json` prints it. */
interface Fetched {
  readonly hook: string
  readonly layer: number
  readonly request_id: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly tokens: readonly (readonly [number, number])[]
  readonly complete: string
  /** Positions that are missing of what was asked for. */
  readonly gaps: readonly (readonly [number, number])[]
  readonly bytes: number
  readonly file: string | null
}

export function fetchCommand(command: Command): void {
  withConfig(command)
    .description(
      'fetch tensors of a trace; of several, redacted ones are passed over and named, with exit code 0',
    )
    .argument('<trace_id>', '32 hexadecimal digits')
    .option('--hook <name>', 'only this hook')
    .option('--layer <layer>', 'only this layer; not needed for global hooks')
    .option('--tokens <a:b>', 'only these token positions, half open')
    .option('--heads <list>', 'only these heads, such as 0,3,5:8')
    .option('--rank <rank>', 'only this tensor-parallel rank, or tp:0,pp:1')
    .option('--producer <producer>', 'which producer, when several have the tensor')
    .option('--request <id>', 'which request, when the trace has several')
    .option('--format <format>', `${tensorFormats.join(', ')} (default: what -o ends in, else npy)`)
    .option(
      '-o, --output <path>',
      'a file or a directory for one tensor (- for standard output), else a directory',
    )
    .option('--require-complete', 'exit with 4 when tokens are missing')
    .option('--json', 'print what was fetched as one JSON document')
    .action(async (traceId: string, options: FetchOptions) => {
      process.exitCode = await fetchTensors(traceId, options)
    })
}

async function fetchTensors(given: string, options: FetchOptions): Promise<number> {
  const traceId = parseTraceId(given)
  const format = outputFormat(options)
  const { config } = configFrom(options)
  const { catalog, reader } = await openTrace(config, traceId, tellLocalOnly)
  try {
    const queries = plan(catalog, traceId, options)
    checkOutputCount(options.output, queries.length)
    const fetched: Fetched[] = []
    const redacted: TensorQuery[] = []
    const progress = showProgress(queries.length)
    try {
      for (const query of queries) {
        const opened = await openUnlessRedacted(reader, query, redacted.length + 1 < queries.length)
        if (opened === null) {
          redacted.push(query)
          continue
        }
        const file = outputPath(opened, format, options.output, queries.length === 1)
        fetched.push(await deliver(opened, format, file))
        progress.step(opened.plan.bytes)
      }
    } catch (error) {
      progress.end()
      if (fetched.length > 0) report(fetched, redacted, options)
      throw error
    }
    progress.end()
    report(fetched, redacted, options)
    const missing = fetched.some((tensor) => tensor.complete !== 'complete')
    return missing && options.requireComplete === true ? exitCodes.incomplete : exitCodes.done
  } finally {
    catalog.close()
  }
}

/**
 * Null for a tensor whose payload was left out, where others may be there: the error would hide them.
 * Of a trace with nothing but such tensors, the last one's error is told.
 */
async function openUnlessRedacted(
  reader: TensorReader,
  query: TensorQuery,
  others: boolean,
): Promise<OpenedTensor | null> {
  try {
    return await reader.open(query)
  } catch (error) {
    if (others && error instanceof Ring2Error && error.code === 'RING2_E_REDACTED') return null
    throw error
  }
}

/** One query per (request, hook, layer) that fits the options. */
function plan(catalog: Catalog, traceId: string, options: FetchOptions): TensorQuery[] {
  const hook = options.hook === undefined ? null : parseHook(options.hook)
  const layer = options.layer === undefined ? null : parseLayer(options.layer)
  const base = {
    traceId,
    rank: options.rank === undefined ? null : parseRank(options.rank),
    producer: options.producer ?? null,
    tokens: options.tokens === undefined ? null : parseTokens(options.tokens),
    heads: options.heads === undefined ? null : parseHeads(options.heads),
  }
  const global = hooks.find((known) => known.name === hook)?.layered === false
  if (hook !== null && (layer !== null || global)) {
    return [{ ...base, requestId: options.request ?? null, hook, layer: layer ?? -1 }]
  }
  const found = new Map<string, TensorQuery>()
  const meant =
    options.producer === undefined
      ? null
      : producersMeant(catalog.requests(traceId), options.producer)
  for (const series of catalog.series({ traceId })) {
    if (hook !== null && series.hook !== hook) continue
    if (layer !== null && series.layer !== layer) continue
    if (options.request !== undefined && series.request_id !== options.request) continue
    if (meant?.has(series.producer) === false) continue
    found.set(JSON.stringify([series.request_id, series.hook, series.layer]), {
      ...base,
      requestId: series.request_id,
      hook: series.hook,
      layer: series.layer,
    })
  }
  if (found.size > 0) return [...found.values()]
  const held = catalog.series({ traceId }).length > 0
  throw new Ring2Error(held ? 'RING2_E_TENSOR_UNKNOWN' : 'RING2_E_TRACE_UNKNOWN', {
    expected: held ? `a tensor that trace ${traceId} has` : 'a trace id of the store',
    actual: held ? selectionText(options) : traceId,
    action: `Look with \`ring2-exporter ${held ? `ls ${traceId}` : 'ls'}\`.`,
  })
}

function selectionText({ hook, layer, request }: FetchOptions): string {
  const parts = { hook, layer, request }
  return Object.entries(parts)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `--${name} ${value}`)
    .join(' ')
}

async function deliver(
  opened: OpenedTensor,
  format: TensorFormat,
  file: string | null,
): Promise<Fetched> {
  const { plan: stitched, hook, layer, requestId } = opened
  const answer = await answerOf(opened, format)
  await writeOutput(file, answer.stream(0, answer.size))
  return {
    hook,
    layer,
    request_id: requestId,
    dtype: stitched.dtype.name,
    shape: stitched.shape,
    tokens: pairsOf(stitched.tokens),
    complete: stitched.completeness,
    gaps: pairsOf(stitched.gaps),
    bytes: stitched.bytes,
    file,
  }
}

function pairsOf(ranges: readonly TokenRange[]): (readonly [number, number])[] {
  return ranges.map(({ start, end }) => [start, end] as const)
}

function report(
  fetched: readonly Fetched[],
  redacted: readonly TensorQuery[],
  options: FetchOptions,
): void {
  for (const query of redacted) {
    const layer = query.layer < 0 ? '' : ` layer ${query.layer}`
    tell(`${query.hook}${layer} of ${query.requestId}: redacted, its elements are not in the store`)
  }
  if (options.json === true && options.output !== '-') {
    const names = redacted.map(({ hook, layer, requestId }) => {
      return { hook, layer, request_id: requestId }
    })
    printJson({ tensors: fetched, redacted: names })
    return
  }
  for (const tensor of fetched) {
    const layer = tensor.layer < 0 ? '' : ` layer ${tensor.layer}`
    const state = `${tensor.complete}${missingText(tensor.gaps)}`
    const text = `${tensor.hook}${layer}  ${tensor.dtype} [${tensor.shape.join(', ')}]  ${state}`
    if (tensor.file === null) tell(text)
    else print(`${text}  ${tensor.file}`)
  }
}

function missingText(gaps: Fetched['gaps']): string {
  if (gaps.length === 0) return ''
  const shown = gaps.slice(0, gapsShown).map(([start, end]) => `${start}:${end}`)
  const more = gaps.length > gapsShown ? ` and ${gaps.length - gapsShown} more ranges` : ''
  return `, no tokens ${shown.join(', ')}${more}`
}
