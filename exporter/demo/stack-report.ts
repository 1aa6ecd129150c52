/** What the demo's page says of the servers that watched: what they have, and where to look at it. */
import { styles } from '../cli/table.ts'
import { demoFault } from './conversations.ts'
import type { Page } from './document.ts'
import type { ServerLinks } from './links.ts'

const pagesHint =
  'Jaeger and Prometheus, built from their modules, answer as JSON and have no pages; for those, and for the dashboards\n' +
  'in Grafana, run the servers with `docker compose -f otel-config/compose.yaml up` (docs/stack.md).'

const { layer } = demoFault
const faultHint = `Statistics of resid_pre are of what enters a layer, so noise in layer ${layer} shows from layer ${layer + 1} on.`

/** None for a demo that no server watched. */
export function stackLines(page: Page): string[] {
  const { bold, dim, green, yellow } = styles()
  const { servers } = page.links
  const { jaeger, prometheus, alerts } = page.document
  if (servers === undefined || jaeger === undefined) return []
  if (prometheus === undefined || alerts === undefined) return []
  const healthy = page.links.faults === null
  const caller = healthy ? 'client' : 'app'
  const before = healthy
    ? 'nothing was broken'
    : alerts.silent_before
      ? green('nothing fired before the layer was broken')
      : yellow('SOMETHING FIRED BEFORE THE LAYER WAS BROKEN')
  const fired = alerts.fired.map(({ alertname, severity }) => `${alertname} (${severity})`)
  const hint = page.running
    ? ''
    : dim('The servers have ended; add --keep to leave them running and open these.')
  return [
    '',
    bold('What the servers have, read back from their own APIs'),
    `Jaeger        ${jaeger.spans} spans in the trace above (${jaeger.services.join(', ')}), ${jaeger.under_app ? green(`the model inside the ${caller}’s span`) : yellow(`NOT UNDER THE ${caller.toUpperCase()}`)}`,
    `Prometheus    ${prometheus.series} series, ${prometheus.native_histograms} of them native histograms; exemplars of ${prometheus.exemplar_trace_ids.length} traces`,
    `Alertmanager  ${fired.length > 0 ? fired.join(', ') : healthy ? 'nothing fired' : yellow('NOTHING FIRED')}; ${before}`,
    '',
    bold('Where to look'),
    ...look(servers, page.links.explorer, healthy),
    ...(hint === '' ? [] : [hint]),
    '',
  ]
}

/** @param healthy whether nothing was broken. */
function look(servers: ServerLinks, explorer: string, healthy: boolean): string[] {
  const { dim } = styles()
  const { grafana } = servers
  const places: readonly (readonly [string, string])[] = [
    [
      servers.jaeger_trace,
      healthy
        ? 'one request: verdict and statistics per layer on "ring2 request"'
        : 'the request that broke: verdict, findings and statistics per layer on "ring2 request", and "fault.injected" on "llm.generate"',
    ],
    [
      servers.prometheus_entropy,
      `median entropy of the next token over the time of this run${healthy ? '' : ': it jumps where the layer broke'}`,
    ],
    [servers.prometheus_exemplars, 'the trace ids behind the points of that curve'],
    [servers.alertmanager, 'the alerts, their labels and their runbooks'],
    [explorer, 'the explorer: verdict, tokens, norms and attention of that request'],
    ...(grafana === null ? [] : [[grafana, 'the dashboards, in Grafana'] as const]),
  ]
  return [
    ...places.flatMap(([url, what]) => [url, dim(`  ${what}`)]),
    ...(healthy ? [] : [dim(faultHint)]),
    ...(grafana === null ? [dim(pagesHint)] : []),
  ]
}
