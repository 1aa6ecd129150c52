/** What the demo's page says of the servers that watched: what they have, and where to look at it. */
import { styles } from '../cli/table.ts'
import { graphUrl, queryUrl } from './prometheus.ts'
import type { Page } from './report.ts'
import type { StackUrls } from './stack/servers.ts'

/** Median entropy of the next token: it jumps where the layer was broken. */
export const entropyQuery =
  'histogram_quantile(0.5, sum by (gen_ai_request_model) (rate(ring2_logits_entropy[1m])))'

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
    `Jaeger        ${jaeger.spans} spans of ${jaeger.services.join(' and ')} in the trace above, ${jaeger.under_app ? green('the model inside the app’s span') : yellow('NOT UNDER THE APP')}`,
    `Prometheus    ${prometheus.series} series, ${prometheus.native_histograms} of them native histograms; exemplars of ${prometheus.exemplar_trace_ids.length} traces`,
    `Alertmanager  ${fired.length === 0 ? yellow('NOTHING FIRED') : fired.join(', ')}; ${before}`,
    '',
    bold('Where to look'),
    ...look(page, urls),
    ...(hint === '' ? [] : [hint]),
    '',
  ]
}

function look({ shown, api }: Page, urls: StackUrls): string[] {
  const { dim } = styles()
  const places: readonly (readonly [string, string])[] = [
    [
      `${urls.jaeger}/trace/${shown}`,
      'the request that broke: verdict, event and statistics per layer on "ring2 request", and "fault.injected" on "llm.generate"',
    ],
    [`${urls.jaeger}/api/traces/${shown}`, 'the same as JSON'],
    [
      graphUrl(urls.prometheus, entropyQuery),
      'median entropy of the next token: it jumps where layer and answers broke; exemplars lead to traces',
    ],
    [queryUrl(urls.prometheus, entropyQuery), 'the same as JSON: its value now'],
    [`${urls.alertmanager}/#/alerts`, 'the alert, its labels and its runbook'],
    [`${api}/v1/traces/${shown}`, 'verdict, statistics and stored tensors of that request'],
  ]
  return [
    ...places.flatMap(([url, what]) => [url, dim(`  ${what}`)]),
    dim(
      'Servers built from their modules have no pages of Jaeger’s and Prometheus’ own; those, and the dashboards in\n' +
        'Grafana, come with `docker compose -f otel-config/compose.yaml up`.',
    ),
  ]
}
