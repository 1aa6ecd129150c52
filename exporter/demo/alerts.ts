/**
 * Alerts as Prometheus and Alertmanager have them, and the webhook receiver at the end of their way: a
 * small HTTP server that keeps what Alertmanager posts to it.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getJson } from './http.ts'
import { demoLimits } from './limits.ts'
import { hadSamples } from './prometheus.ts'

export interface FiredAlert {
  readonly alertname: string
  readonly severity: string
  readonly model: string
  /** RFC 3339. */
  readonly starts_at: string
  readonly receivers: readonly string[]
}

export interface AlertsEvidence {
  /** As Alertmanager lists them. */
  readonly fired: readonly FiredAlert[]
  /** Whether nothing fired before the model was broken. */
  readonly silent_before: boolean
}

/** What Alertmanager posts: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config */
export interface Notification {
  readonly status: 'firing' | 'resolved'
  readonly receiver: string
  readonly alerts: readonly {
    readonly status: 'firing' | 'resolved'
    readonly labels: Readonly<Record<string, string>>
    readonly annotations: Readonly<Record<string, string>>
    readonly startsAt: string
    /** The graph of the alert's expression. */
    readonly generatorURL: string
  }[]
}

export interface Webhook {
  readonly url: string
  /** Everything posted so far. */
  received(): readonly Notification[]
  close(): Promise<void>
}

export async function startWebhook(): Promise<Webhook> {
  const received: Notification[] = []
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of request as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > demoLimits.notificationBytesMax) return void response.writeHead(413).end()
      chunks.push(chunk)
    }
    try {
      received.push(JSON.parse(Buffer.concat(chunks).toString('utf8')) as Notification)
      if (received.length > demoLimits.notificationsMax) received.shift()
      response.writeHead(200).end()
    } catch {
      response.writeHead(400).end()
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/alerts`,
    received: () => received,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

interface AlertmanagerAlert {
  readonly labels: Readonly<Record<string, string>>
  readonly startsAt: string
  readonly receivers: readonly { readonly name: string }[]
}

/** Those that fire now, as Alertmanager has them. */
export async function alertsFired(alertmanager: string): Promise<FiredAlert[]> {
  const alerts = await getJson<AlertmanagerAlert[]>(`${alertmanager}/api/v2/alerts?active=true`)
  return alerts.map(({ labels, startsAt, receivers }) => ({
    alertname: labels.alertname ?? '',
    severity: labels.severity ?? '',
    model: labels.gen_ai_request_model ?? '',
    starts_at: startsAt,
    receivers: receivers.map(({ name }) => name),
  }))
}

/** Whether no alert fired in Prometheus between two times, in seconds of Unix time. */
export async function wasSilent(prometheus: string, start: number, end: number): Promise<boolean> {
  return !(await hadSamples(prometheus, 'ALERTS{alertstate="firing"}', start, end))
}

interface RuleGroups {
  readonly data: {
    readonly groups: readonly {
      readonly lastEvaluation: string
      readonly rules: readonly { readonly type: string }[]
    }[]
  }
}

/** When the alert rules were last evaluated, the group that waits longest; milliseconds, 0 for never. */
export async function rulesEvaluatedAt(prometheus: string): Promise<number> {
  const { data } = await getJson<RuleGroups>(`${prometheus}/api/v1/rules?type=alert`)
  const times = data.groups
    .filter(({ rules }) => rules.length > 0)
    .map(({ lastEvaluation }) => Date.parse(lastEvaluation))
  return times.length === 0 ? 0 : Math.min(...times)
}
