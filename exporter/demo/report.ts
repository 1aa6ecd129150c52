/** The demo's result: as one document, and as a page for a terminal. */
import { bytesText, numberText, sparkline, styles, table } from '../cli/table.ts'
import type { Page } from './document.ts'
import { stackLines } from './stack-report.ts'

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
