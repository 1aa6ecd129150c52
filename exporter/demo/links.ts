/** Where the demo's processes are, and what to open there. It opens nothing. */
import type { Engine } from './engines.ts'
import { exemplarsUrl, graphUrl, type Period, rangeUrl } from './prometheus.ts'
import type { StackUrls } from './stack/servers.ts'

export interface ServerLinks {
  /** The trace that is shown. */
  readonly jaeger_trace: string
  /** Median entropy of the next token, over the time of the demo. */
  readonly prometheus_entropy: string
  /** The requests behind that graph's points. */
  readonly prometheus_exemplars: string
  readonly alertmanager: string
  /** Null without containers. */
  readonly grafana: string | null
}

export interface Links {
  /** The exporter. */
  readonly api: string
  /** What the exporter has of the request that is shown, as JSON. */
  readonly request: string
  /** The same request in the explorer. */
  readonly explorer: string
  /** Where the model takes prompts. */
  readonly chat: string
  /** Where the model can be broken, and mended; null for an engine that cannot be. */
  readonly faults: string | null
  /** OTLP over gRPC: the Collector, or the receiver in its place. */
  readonly otlp: string
  /** With the servers that watched. */
  readonly servers?: ServerLinks
}

/** Median entropy of the next token: it jumps where the layer was broken. */
export const entropyQuery =
  'histogram_quantile(0.5, sum by (gen_ai_request_model) (rate(ring2_logits_entropy[1m])))'

/** Where compose.yaml puts it. */
const grafana = 'http://127.0.0.1:3000/d/ring2-overview'

export function linksOf(
  addresses: { readonly api: string; readonly service: string },
  otlp: string,
  traceId: string,
  { breakable }: Pick<Engine, 'breakable'>,
): Links {
  return {
    api: addresses.api,
    request: `${addresses.api}/v1/traces/${traceId}`,
    explorer: `${addresses.api}/t/${traceId}`,
    chat: `${addresses.service}${breakable ? '/chat' : '/v1/chat/completions'}`,
    faults: breakable ? `${addresses.service}/faults` : null,
    otlp,
  }
}

/**
 * @param period when the demo ran: the answers stay the same however late a link is opened.
 * @param pages whether Jaeger and Prometheus have pages for people; else the links are to their APIs.
 */
export function serverLinks(
  urls: StackUrls,
  traceId: string,
  period: Period,
  pages: boolean,
): ServerLinks {
  const { jaeger, prometheus, alertmanager } = urls
  return {
    jaeger_trace: pages ? `${jaeger}/trace/${traceId}` : `${jaeger}/api/traces/${traceId}`,
    prometheus_entropy: pages
      ? graphUrl(prometheus, entropyQuery, period)
      : rangeUrl(prometheus, entropyQuery, period, 5),
    prometheus_exemplars: exemplarsUrl(prometheus, 'ring2_logits_entropy', period),
    alertmanager: `${alertmanager}/#/alerts`,
    grafana: pages ? grafana : null,
  }
}
