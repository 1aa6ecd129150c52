/** What the demo's page says of the servers that watched: what they have, and where to look at it. */
import { styles } from '../cli/table.ts'
import type { Page } from './document.ts'
import { graphUrl, queryUrl } from './prometheus.ts'
import type { StackUrls } from './stack/servers.ts'

/** Median entropy of the next token: it jumps where the layer was broken. */
export const entropyQuery =
  'histogram_quantile(0.5, sum by (gen_ai_request_model) (rate(ring2_logits_entropy[1m])))'

/** Where compose.yaml puts it. */
const grafana = 'http://127.0.0.1:3000'

const pagesHint =
  'Jaeger and Prometheus, built from their modules, answer as JSON and have no pages; for those, and for the dashboards\n' +
  'in Grafana, run the servers with `docker compose -f otel-config/compose.yaml up` (docs/stack.md).'

export function stackLines(page: Page, urls: StackUrls): string[] {
  const { bold, dim, green, yellow } = styles()
  const { jaeger, prometheus, alerts } = page.document
  if (jaeger === undefined || prometheus === undefined || alerts === undefined) return []
  const before = alerts.silent_before
    ? green('nothing fired before the layer was broken')
    : yellow('SOMETHING FIRED BEFORE THE LAYER WAS BROKEN')
  const fired = alerts.fired.map(({ alertname, severity }) => `${alertname} (${severity})`)
  const hint = page.running
    ? ''
    : dim('The servers have ended; add --keep to leave them running and open these.')
  return [
    '',
    bold('What the servers have, read back from their own APIs'),
    `Jaeger        ${jaeger.spans} spans in the trace above (${jaeger.services.join(', ')}), ${jaeger.under_app ? green('the model inside the app’s span') : yellow('NOT UNDER THE APP')}`,
    `Prometheus    ${prometheus.series} series, ${prometheus.native_histograms} of them native histograms; exemplars of ${prometheus.exemplar_trace_ids.length} traces`,
    `Alertmanager  ${fired.length === 0 ? yellow('NOTHING FIRED') : fired.join(', ')}; ${before}`,
    '',
    bold('Where to look'),
    ...look(page, urls),
    ...(hint === '' ? [] : [hint]),
    '',
  ]
}

function look({ shown, api, pages }: Page, urls: StackUrls): string[] {
  const { dim } = styles()
  const trace = pages ? `${urls.jaeger}/trace/${shown}` : `${urls.jaeger}/api/traces/${shown}`
  const entropy = pages
    ? graphUrl(urls.prometheus, entropyQuery)
    : queryUrl(urls.prometheus, entropyQuery)
  const places: readonly (readonly [string, string])[] = [
    [
      trace,
      'the request that broke: verdict, findings and statistics per layer on "ring2 request", and "fault.injected" on "llm.generate"',
    ],
    [
      entropy,
      'median entropy of the next token: it jumps where the layer broke; exemplars lead to traces',
    ],
    [`${urls.alertmanager}/#/alerts`, 'the alerts, their labels and their runbooks'],
    [`${api}/v1/traces/${shown}`, 'verdict, statistics and stored tensors of that request'],
    ...(pages ? [[`${grafana}/d/ring2-overview`, 'the dashboards, in Grafana'] as const] : []),
  ]
  return [
    ...places.flatMap(([url, what]) => [url, dim(`  ${what}`)]),
    ...(pages ? [] : [dim(pagesHint)]),
  ]
}
