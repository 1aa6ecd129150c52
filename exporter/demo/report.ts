/** The demo's result: as one document, and as a page for a terminal. */
import { bytesText, numberText, sparkline, styles, table } from '../cli/table.ts'
import { demoFault } from './conversations.ts'
import type { Page } from './document.ts'
import type { Links } from './links.ts'
import { stackLines } from './stack-report.ts'
import type { Verified } from './verify.ts'

/** Quoted where a shell would split it or read more into it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

export function renderPage(page: Page): string {
  const { document, traceLines, links, running } = page
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
  const fetchCommand = `npx ring2-exporter fetch ${verified.trace_id} --hook ${verified.hook} --layer ${verified.layer} --store ${shellWord(document.store)}`
  const outcome = outcomeText(verified)
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
    `${bold('Checked')}    the same: ${verified.hook} layer ${verified.layer} [${verified.shape.join(', ')}], ${bytesText(verified.bytes)}: ${verified.equal ? green(outcome) : yellow(outcome)}`,
    `${bold('Lost')}       ${losses.length === 0 ? 'nothing' : losses.map((loss) => `${loss.records} records (${loss.reason})`).join(', ')}`,
    ...stackLines(page),
    ...(running ? runningLines(links) : [lookLine(page)]),
    dim(`${document.seconds.toFixed(1)} s in all`),
    '',
  ].join('\n')
}

function outcomeText({ equal, difference }: Verified): string {
  if (difference > 0) {
    const far = `${(difference * 100).toPrecision(2)} % of its largest magnitude from Transformers`
    return equal ? `within ${far}` : `TOO FAR: ${far}`
  }
  return `${equal ? 'equal' : 'NOT EQUAL'} byte for byte with what the model process held`
}

/** How to open the trace that was shown when the exporter of the demo has ended. */
function lookLine({ document, shown }: Page): string {
  const { bold } = styles()
  const start = `npx ring2-exporter run --store ${shellWord(document.store)}`
  return `${bold('Look at it')} ${start}, then open http://127.0.0.1:9464/t/${shown}`
}

function faultLines(faults: string, json: string): [string, string][] {
  return [
    [`curl -s ${faults} ${json} '${JSON.stringify(demoFault)}'`, 'breaks a layer'],
    [`curl -s -X DELETE ${faults}`, 'mends it'],
  ]
}

function runningLines(links: Links): string[] {
  const { bold, dim } = styles()
  const json = "-H 'content-type: application/json' -d"
  const prompt = JSON.stringify({ messages: [{ role: 'user', content: 'Hi' }], max_tokens: 24 })
  const lines: readonly (readonly [string, string])[] = [
    [links.explorer, 'the explorer: tokens, norms and attention of the last trace above'],
    [links.api, 'the exporter, and every trace that it keeps'],
    [links.otlp, `OTLP over gRPC: ${links.servers === undefined ? 'a receiver' : 'the Collector'}`],
    [`curl -s ${links.chat} ${json} '${prompt}'`, 'sends a prompt; the answer has its trace id'],
    ...(links.faults === null ? [] : faultLines(links.faults, json)),
  ]
  return [
    `${bold('Running')}    until Ctrl-C`,
    ...lines.flatMap(([line, what]) => [line, dim(`  ${what}`)]),
    '',
  ]
}
