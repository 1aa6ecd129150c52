/** The demo's result: as one document, and as a page for a terminal. */
import { bytesText, numberText, sparkline, styles, table } from '../cli/table.ts'
import type { Answer, Loss, StoredRequest } from './client.ts'
import type { StackEvidence } from './scenario.ts'
import type { StackUrls } from './stack/servers.ts'
import { stackLines } from './stack-report.ts'
import type { Verified } from './verify.ts'

export interface DemoRequest {
  readonly trace_id: string
  readonly request_id: string
  readonly tokens: number
  readonly prompt_tokens: number
  readonly completion_tokens: number
  /** nat; mean over the logits rows the model computed. */
  readonly entropy: number | null
  readonly top1_probability: number | null
  /** Mean over layers, heads and queries of the attention mass on the first key. */
  readonly sink_mass: number | null
  /** Mean L2 norm of the residual stream entering each layer. */
  readonly norms: readonly (number | null)[]
  readonly verdict: string
  readonly completeness: string
  readonly tensors: number
  readonly bytes: number
  readonly text: string
}

/** With the stack: six healthy requests, then those of the broken model; and what the servers have. */
export interface DemoDocument extends Partial<StackEvidence> {
  readonly requests: readonly DemoRequest[]
  readonly store: string
  readonly verified: Verified
  readonly losses: readonly Loss[]
  readonly seconds: number
}

function mean(values: readonly (number | null)[] | undefined): number | null {
  const known = (values ?? []).filter((value) => value !== null)
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length
}

export function describeRequest(answer: Answer, stored: StoredRequest): DemoRequest {
  const layers = stored.details?.statistics.layers ?? {}
  const globals = stored.details?.statistics.globals ?? {}
  return {
    trace_id: answer.traceId,
    request_id: answer.requestId,
    tokens: stored.tokens,
    prompt_tokens: answer.promptTokens,
    completion_tokens: answer.completionTokens,
    entropy: globals['final_logits.entropy_mean'] ?? null,
    top1_probability: globals['final_logits.top1_probability_mean'] ?? null,
    sink_mass: mean(layers['pattern.sink_mass']),
    norms: layers['resid_pre.l2_mean'] ?? [],
    verdict: stored.verdict,
    completeness: stored.completeness,
    tensors: stored.tensors_stored,
    bytes: stored.bytes_stored,
    text: answer.text,
  }
}

export interface Page {
  readonly document: DemoDocument
  /** The trace that is shown as a tree, and to fetch from. */
  readonly shown: string
  readonly traceLines: readonly string[]
  readonly api: string
  /** Addresses of the servers that watched. */
  readonly urls?: StackUrls
  /** Whether Jaeger and Prometheus have pages for people: containers do. */
  readonly pages?: boolean
  /** Whether the processes go on. */
  readonly running: boolean
}

/** Quoted where a shell would split it or read more into it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

export function renderPage(page: Page): string {
  const { document, shown, traceLines, api, urls, running } = page
  const { bold, dim, green, yellow } = styles()
  const { requests, verified, losses } = document
  const rows = requests.map((request) => [
    request.trace_id,
    `${request.prompt_tokens}+${request.completion_tokens}`,
    numberText(request.entropy),
    numberText(request.top1_probability),
    numberText(request.sink_mass),
    sparkline(request.norms),
    `${numberText(request.norms.at(0), 1)} → ${numberText(request.norms.at(-1), 1)}`,
    request.verdict,
  ])
  const columns = [
    { title: 'TRACE ID' },
    { title: 'TOKENS', right: true },
    { title: 'ENTROPY', right: true },
    { title: 'TOP-1', right: true },
    { title: 'SINK', right: true },
    { title: 'NORM BY DEPTH' },
    { title: 'FIRST → LAST' },
    { title: 'VERDICT' },
  ]
  const bytes = requests.reduce((sum, request) => sum + request.bytes, 0)
  const tensors = requests.reduce((sum, request) => sum + request.tensors, 0)
  const fetchCommand = `npx ring2-exporter fetch ${shown} --hook ${verified.hook} --layer ${verified.layer} --store ${shellWord(document.store)}`
  const outcome = verified.equal ? green('equal byte for byte') : yellow('NOT EQUAL')
  return [
    '',
    table(columns, rows, bold),
    dim('tokens: prompt+new · entropy: nat, of the next token · sink: attention on the first key'),
    '',
    ...(traceLines.length === 0
      ? []
      : [bold('One trace, from the app to the layers'), ...traceLines, '']),
    `${bold('Tensors')}    ${tensors} tensors, ${bytesText(bytes)} of Parquet payload under ${document.store}`,
    `${bold('Fetch one')}  ${fetchCommand}`,
    `${bold('Checked')}    ${verified.hook} layer ${verified.layer} [${verified.shape.join(', ')}], ${bytesText(verified.bytes)}: ${outcome} with what the model process held`,
    `${bold('Lost')}       ${losses.length === 0 ? 'nothing' : losses.map((loss) => `${loss.records} records (${loss.reason})`).join(', ')}`,
    ...(urls === undefined ? [] : stackLines(page, urls)),
    ...(running ? [`${bold('Running')}    ${api} until Ctrl-C`] : []),
    dim(`${document.seconds.toFixed(1)} s in all`),
    '',
  ].join('\n')
}
