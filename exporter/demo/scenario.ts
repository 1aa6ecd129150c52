/**
 * A model that is watched by the real servers, and then breaks: the parts of `demo --stack`, each a
 * function that tests call too. What the servers say is read from their own APIs.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ring2Error } from '../errors.ts'
import {
  alertsFired,
  type Notification,
  rulesEvaluatedAt,
  startWebhook,
  type Webhook,
  wasSilent,
} from './alerts.ts'
import { type Answer, type Ask, injectFault, removeFault } from './client.ts'
import { withClientSpan } from './client-span.ts'
import { type Servers, startCompose } from './compose.ts'
import type { Fault } from './conversations.ts'
import type { DemoRequest, StackEvidence } from './document.ts'
import type { Engine } from './engines.ts'
import { freePort } from './http.ts'
import { jaegerEvidence, waitForTrace } from './jaeger.ts'
import { demoLimits } from './limits.ts'
import { type Parts, startExporter, stopParts } from './parts.ts'
import { type Period, prometheusEvidence, queryNumber } from './prometheus.ts'
import { askAll } from './requests.ts'
import { type Stack, startStack } from './stack/servers.ts'

/** The servers' own programs where `S` is Stack, containers else. */
export interface Watched<S extends Servers = Servers> {
  readonly parts: Parts
  readonly stack: S
  /** At the end of an alert's way; null where containers could not reach it. */
  readonly webhook: Webhook | null
  readonly api: string
  /** Where the model takes prompts. */
  readonly service: string
  readonly ask: Ask
  /** Ends everything, the model first; false when a process did not end in order. */
  stop(): Promise<boolean>
}

export interface WatchedOptions {
  readonly parts: Parts
  readonly store: string
  readonly engine: Engine
  onProgress(text: string): void
}

/**
 * Servers of one's own, exporter and chat service; nothing is left running when one does not start.
 *
 * @param binaries folder with the servers' programs.
 */
export async function startWatched(
  options: WatchedOptions,
  binaries: string,
): Promise<Watched<Stack> & { readonly webhook: Webhook }> {
  options.onProgress('starting the Collector, Jaeger, Prometheus and Alertmanager …')
  const webhook = await startWebhook()
  // Known before the exporter runs, because the Collector's tap sends to it.
  const port = await freePort()
  try {
    const stack = await startStack({
      binaries,
      folder: join(options.parts.folder, 'stack'),
      webhookUrl: webhook.url,
      evaluationInterval: '1s',
      groupWait: '1s',
      environment: { RING2_TAP_ENDPOINT: `http://127.0.0.1:${port}/otlp` },
    })
    const stop = async (): Promise<void> => {
      await stack.stop()
      await webhook.close()
    }
    return { ...(await startModel(options, { urls: stack.urls, stop }, port)), stack, webhook }
  } catch (error) {
    await webhook.close()
    throw error
  }
}

/** The same with the servers of compose.yaml; alerts are then read from Alertmanager only. */
export async function startWatchedByCompose(options: WatchedOptions): Promise<Watched> {
  options.onProgress('starting the Collector, Jaeger, Prometheus, Alertmanager and Grafana …')
  const stack = await startCompose(`ring2-${options.parts.segment}`)
  return { ...(await startModel(options, stack, 0)), stack, webhook: null }
}

/** Exporter and chat service; when one does not start, the servers end too. */
async function startModel(
  { parts, store, engine, onProgress }: WatchedOptions,
  servers: Servers,
  port: number,
): Promise<Omit<Watched, 'stack' | 'webhook'>> {
  const stop = async (): Promise<boolean> => {
    const orderly = await stopParts(parts, onProgress)
    onProgress('stopping the servers …')
    await servers.stop()
    return orderly
  }
  try {
    const endpoint = servers.urls.otlpGrpc
    onProgress('starting the exporter …')
    const api = await startExporter(parts, { store, endpoint, port, metricsSeconds: 2 })
    onProgress(`starting ${engine.title} …`)
    const { address, ask } = await engine.start(parts, { endpoint, allowFaults: true })
    const traced = withClientSpan(ask, servers.urls.otlpHttp)
    return { parts, api, service: address, ask: traced, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/**
 * Waits until Prometheus has counted so many ended requests, and has judged its alert rules twice since.
 * The time then, in seconds of Unix time.
 */
export async function settle({ stack }: Watched, requests: number): Promise<number> {
  const { prometheus } = stack.urls
  const counted = async () =>
    (await queryNumber(prometheus, 'sum(ring2_requests_total)')) >= requests
  await eventually(counted, demoLimits.storedMillis, `${requests} requests in Prometheus`)
  for (let evaluations = 0; evaluations < 2; evaluations++) {
    const before = Date.now()
    const judged = async () => (await rulesEvaluatedAt(prometheus)) > before
    await eventually(judged, demoLimits.storedMillis, 'an evaluation of the alert rules')
  }
  return Date.now() / 1000
}

/** What was asked while the model was broken. */
export interface Broken {
  readonly requests: readonly DemoRequest[]
  /** The first whose verdict is bad. */
  readonly worst: Answer
}

/** Breaks one layer, asks, waits for a page about it, and mends the layer again. */
export async function breakAndMend(
  watched: Watched,
  fault: Fault,
  groups: readonly (readonly string[])[],
  onProgress: (text: string) => void,
): Promise<Broken> {
  await injectFault(watched.service, fault)
  try {
    const { answers, requests } = await askAll(watched, groups, onProgress)
    const bad = requests.findIndex(({ verdict }) => verdict !== 'ok' && verdict !== 'unknown')
    const worst = answers[bad]
    if (worst === undefined) {
      throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
        expected: 'a bad verdict on an answer of the broken model',
        actual: requests.map(({ verdict }) => verdict).join(', '),
      })
    }
    onProgress('waiting for the alert …')
    await eventually(() => hasPaged(watched), demoLimits.alertMillis, 'somebody to be paged')
    return { requests, worst }
  } finally {
    await removeFault(watched.service)
  }
}

/** Whether an alert that wakes somebody has come to its end: the webhook, or Alertmanager. */
async function hasPaged({ stack, webhook }: Watched): Promise<boolean> {
  if (webhook !== null) return pageOf(webhook) !== undefined
  const fired = await alertsFired(stack.urls.alertmanager)
  return fired.some(({ severity }) => severity === 'page')
}

/** The first message about an alert that somebody is woken for. */
export function pageOf(webhook: Webhook): Notification | undefined {
  return webhook
    .received()
    .find(({ alerts }) =>
      alerts.some(({ status, labels }) => status === 'firing' && labels.severity === 'page'),
    )
}

/** Reads everything back from the servers: the trace of one request, the series, the alerts. */
export async function readEvidence(
  { stack }: Watched,
  { traceId, ancestry }: Pick<Answer, 'traceId' | 'ancestry'>,
  healthy: Period,
): Promise<StackEvidence> {
  const { jaeger, prometheus, alertmanager } = stack.urls
  await waitForTrace(jaeger, traceId, ancestry)
  return {
    jaeger: await jaegerEvidence(jaeger, traceId, ancestry),
    prometheus: await prometheusEvidence(prometheus),
    alerts: {
      fired: await alertsFired(alertmanager),
      silent_before: await wasSilent(prometheus, healthy.from, healthy.to),
    },
  }
}

/** @throws Ring2Error when it does not come true in time. */
export async function eventually(
  probe: () => boolean | Promise<boolean>,
  millis: number,
  expected: string,
): Promise<void> {
  const until = performance.now() + millis
  while (!(await probe())) {
    if (performance.now() > until) {
      throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
        expected,
        actual: `nothing in ${millis / 1000} s`,
      })
    }
    await sleep(demoLimits.pollMillis)
  }
}
