import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkQueries, failures } from '../../dashboards/check-queries.ts'
import {
  type Answer,
  askChatService,
  injectFault,
  removeFault,
} from '../../exporter/demo/client.ts'
import { demoFault } from '../../exporter/demo/conversations.ts'
import { showWatched, type WatchedDemo } from '../../exporter/demo/demo.ts'
import { engines } from '../../exporter/demo/engines.ts'
import { readTrace } from '../../exporter/demo/jaeger.ts'
import { entropyQuery } from '../../exporter/demo/links.ts'
import { exemplarTraceIds, query, queryNumber } from '../../exporter/demo/prometheus.ts'
import { renderPage } from '../../exporter/demo/report.ts'
import { pageOf, settle, startWatched } from '../../exporter/demo/scenario.ts'
import { requireStackBinaries } from '../../exporter/demo/stack/binaries.ts'
import { otelConfig, serverCommand } from '../../exporter/demo/stack/commands.ts'
import { createServerProcess } from '../../exporter/demo/stack/process.ts'
import type { TraceSpan } from '../../exporter/demo/trace-tree.ts'
import { prometheusName } from '../../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../../exporter/telemetry/registry.ts'
import { python } from '../helpers/otlp-receiver.ts'
import { eventually, stackIsThere } from '../helpers/stack.ts'
import { modelFolder } from '../pipeline/processes.ts'

/** Spans of a request's trace, each with its parent's name, as `parent > name`. */
function edges(spans: readonly TraceSpan[]): string[] {
  const names = new Map(spans.map((span) => [span.spanId, span.name]))
  return spans.map((span) => `${names.get(span.parentSpanId ?? '') ?? ''} > ${span.name}`).sort()
}

const wholeTree = [
  ' > POST /chat',
  'POST /chat > POST /chat http receive',
  'POST /chat > POST /chat http send',
  'POST /chat > POST /chat http send',
  'POST /chat > llm.generate',
  'llm.generate > ring2 request',
  'ring2 request > ring2 decode',
  'ring2 request > ring2 prefill',
]

function named(spans: readonly TraceSpan[], name: string): TraceSpan {
  const found = spans.find((span) => span.name === name)
  if (found === undefined) throw new Error(`no span ${name}`)
  return found
}

interface Result {
  readonly values?: readonly unknown[]
  readonly exemplars?: readonly { readonly labels: { readonly trace_id: string } }[]
}

/** What a link to Prometheus' API gives. */
async function results(link = ''): Promise<readonly Result[]> {
  const { data } = (await (await fetch(link)).json()) as { data: Result[] | { result: Result[] } }
  return Array.isArray(data) ? data : data.result
}

/** Metric as PromQL names it → why it has no data here. */
const excuses = new Map([
  ...[
    metrics.routerEntropy,
    metrics.expertEntropy,
    metrics.expertMaxViolation,
    metrics.expertLoadVariation,
    metrics.expertLoadEntropy,
    metrics.expertDeadShare,
  ].map((metric) => [prometheusName(metric), 'the model has no experts'] as const),
  ...[
    metrics.storeUploadFiles,
    metrics.storeUploadIo,
    metrics.storeUploadFailures,
    metrics.storeUploadPendingFiles,
    metrics.storeUploadPendingSize,
    metrics.storeUploadPendingLimit,
  ].map((metric) => [prometheusName(metric), 'the store is a directory'] as const),
  ...[metrics.storeRemovedFiles, metrics.storeRemovedIo].map(
    (metric) => [prometheusName(metric), 'the configuration has no retention'] as const,
  ),
  [prometheusName(metrics.branchContribution), 'attn_out and mlp_out are not captured'],
])

describe.runIf(stackIsThere())('A model that is watched by the real servers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-end-to-end-'))
  let watched: Awaited<ReturnType<typeof startWatched>>
  let demo: WatchedDemo
  /** All requests so far. */
  const asked: { readonly tokens: number }[] = []

  const say = (text: string): void => void process.stderr.write(`${text}\n`)
  const askOne = async (question: string): Promise<Answer> => {
    const answer = await askChatService(watched.service, question)
    asked.push({ tokens: answer.completionTokens })
    return answer
  }
  const wholeTrace = (traceId: string): Promise<TraceSpan[]> =>
    eventually(
      async () => {
        const found = await readTrace(watched.stack.urls.jaeger, traceId)
        return found.length >= wholeTree.length ? found : undefined
      },
      `the whole trace ${traceId} in Jaeger`,
      90_000,
    )
  /** Counted by Prometheus: requests, and rows of logits, one for each token that was generated. */
  const counted = async () => {
    const { prometheus } = watched.stack.urls
    const [entropies] = await query(prometheus, 'sum(ring2_logits_entropy)')
    return {
      requests: await queryNumber(prometheus, 'sum(ring2_requests_total)'),
      rows: Number(entropies?.histogram?.[1].count),
    }
  }
  const truth = () => ({
    requests: asked.length,
    rows: asked.reduce((sum, { tokens }) => sum + tokens, 0),
  })

  beforeAll(async () => {
    process.env.RING2_PYTHON = python
    process.env.RING2_MODEL_DIR = modelFolder()
    const engine = 'transformers'
    const options = { store: join(folder, 'store'), engine, onProgress: say } as const
    const parts = { processes: [], folder, segment: `end-to-end-${process.pid}` }
    watched = await startWatched(
      { ...options, engine: engines[engine], parts },
      requireStackBinaries(),
    )
    demo = await showWatched(options, watched, performance.now())
    asked.push(...demo.document.requests.map((one) => ({ tokens: one.completion_tokens })))
  }, 400_000)

  afterAll(async () => {
    await watched?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test('shows in Jaeger what the model did inside the app’s own trace', async () => {
    const { jaeger } = demo.document
    const spans = await readTrace(watched.stack.urls.jaeger, jaeger.trace_id)
    expect(edges(spans)).toEqual(wholeTree)
    const spanAt = new Map(spans.map((span) => [span.spanId, span]))
    for (const span of spans) {
      expect(span.service).toBe(span.name.startsWith('ring2') ? 'ring2-exporter' : 'chat-service')
      const parent = spanAt.get(span.parentSpanId ?? '')
      if (parent === undefined || span.service === 'chat-service') continue
      expect(span.startMicros).toBeGreaterThanOrEqual(parent.startMicros)
      // Jaeger cuts starts and durations to microseconds.
      const end = parent.startMicros + parent.durationMicros + 1
      expect(span.startMicros + span.durationMicros).toBeLessThanOrEqual(end)
    }
    expect(jaeger).toEqual({
      trace_id: demo.page.shown,
      services: ['chat-service', 'ring2-exporter'],
      spans: wholeTree.length,
      under_app: true,
    })
  })

  test('tells the broken request from a healthy one, and leads to its tensors', async () => {
    const bad = await readTrace(watched.stack.urls.jaeger, demo.page.shown)
    expect(named(bad, 'llm.generate').events).toEqual(['fault.injected'])
    const request = named(bad, 'ring2 request')
    expect(request.events).toContain('ring2.finding')
    expect(request.attributes).toMatchObject({
      'ring2.verdict': 'collapsed',
      'ring2.anomaly': true,
      'ring2.completeness': 'complete',
    })
    const page = String(request.attributes['ring2.tensors.url'])
    expect((await fetch(page)).status).toBe(200)
    const tensors = await fetch(page.replace('/t/', '/v1/traces/'))
    expect(tensors.status).toBe(200)
    const id = demo.document.requests.find((one) => one.trace_id === demo.page.shown)?.request_id
    expect(await tensors.text()).toContain(id)
    const good = await wholeTrace(demo.document.requests[0]?.trace_id ?? '')
    expect(edges(good)).toEqual(wholeTree)
    expect(named(good, 'llm.generate').events).toEqual([])
    expect(named(good, 'ring2 request').events).not.toContain('ring2.finding')
    expect(named(good, 'ring2 request').attributes).toMatchObject({
      'ring2.verdict': 'ok',
      'ring2.anomaly': false,
    })
  })

  test('is found in Jaeger by its anomaly', async () => {
    const words = { service: 'ring2-exporter', tags: '{"ring2.anomaly":"true"}', limit: '100' }
    const search = `${watched.stack.urls.jaeger}/api/traces?${new URLSearchParams(words)}`
    const { data } = (await (await fetch(search)).json()) as { data: { traceID: string }[] }
    const bad = demo.document.requests.filter(({ verdict }) => verdict !== 'ok')
    expect(data.map((one) => one.traceID).sort()).toEqual(bad.map((one) => one.trace_id).sort())
  })

  test('gives data for the queries that docs/stack.md shows', async () => {
    const text = readFileSync(join(import.meta.dirname, '../../docs/stack.md'), 'utf8')
    const section = text.slice(text.indexOf('## In Prometheus'))
    const [, block = ''] = section.split('```')
    const queries = block.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    expect(queries).toHaveLength(3)
    for (const one of queries) {
      const found = await query(watched.stack.urls.prometheus, one)
      expect(found.length, one).toBeGreaterThan(0)
      expect(Number(found[0]?.value?.[1]), one).not.toBeNaN()
    }
  })

  test('has its series and native histograms in Prometheus', async () => {
    const { prometheus } = watched.stack.urls
    const verdicts = await query(prometheus, 'sum by (ring2_verdict) (ring2_requests_total) > 0')
    expect(
      Object.fromEntries(verdicts.map(({ metric, value }) => [metric.ring2_verdict, value?.[1]])),
    ).toEqual({ ok: '6', collapsed: '3' })
    expect(await counted()).toEqual(truth())
    const [median] = await query(prometheus, entropyQuery)
    expect(Number(median?.value?.[1])).toBeGreaterThan(0)
    const { native_histograms: histograms, series } = demo.document.prometheus
    expect(histograms).toBeGreaterThan(400)
    expect(series).toBeGreaterThan(histograms)
  })

  test('has exemplars in Prometheus that open their traces in Jaeger', async () => {
    const { prometheus } = watched.stack.urls
    const ids = await exemplarTraceIds(prometheus, 'ring2_logits_entropy')
    expect(ids.length).toBeGreaterThan(0)
    const known = demo.document.requests.map((request) => request.trace_id)
    for (const id of ids) {
      expect(known).toContain(id)
      expect(edges(await wholeTrace(id))).toContain('llm.generate > ring2 request')
    }
    expect(demo.document.prometheus.exemplar_trace_ids).toEqual(expect.arrayContaining(ids))
  })

  test('pages somebody when it breaks, and nobody before', () => {
    const { fired, silent_before: silent } = demo.document.alerts
    expect(silent).toBe(true)
    const sent = watched.webhook.received().flatMap(({ alerts }) => alerts)
    const early = sent.filter(({ startsAt }) => Date.parse(startsAt) / 1000 < demo.healthy.to)
    expect(early).toEqual([])
    expect(fired.find(({ alertname }) => alertname === 'Ring2BudgetBurnFast')).toMatchObject({
      severity: 'page',
      model: 'SmolLM2-135M-Instruct',
      receivers: ['page'],
    })
    const message = pageOf(watched.webhook)
    expect(message).toMatchObject({ status: 'firing', receiver: 'page' })
    const { runbook_url: runbook } = message?.alerts[0]?.annotations ?? {}
    expect(runbook).toMatch(/ring2-budget-burn-\w+/)
    const { prometheus } = watched.stack.urls
    expect(message?.alerts[0]?.generatorURL.startsWith(`${prometheus}/graph?`)).toBe(true)
  })

  test('is shown on one page, with links that open', async () => {
    const page = renderPage(demo.page)
    expect(page).toContain('the model inside the app’s span')
    expect(page).toContain('Ring2BudgetBurnFast (page)')
    const { verified } = demo.document
    expect(verified).toMatchObject({ trace_id: demo.page.shown, equal: true })
    expect(page).toContain(`fetch ${demo.page.shown} --hook ${verified.hook}`)
    const { otlp, servers } = demo.page.links
    // What a browser cannot open: OTLP over gRPC.
    const links = page.split('\n').filter((line) => line.startsWith('http') && line !== otlp)
    expect(links).toHaveLength(7)
    for (const link of links) expect((await fetch(link)).status, link).toBe(200)
    const [curve] = await results(servers?.prometheus_entropy)
    expect(curve?.values?.length).toBeGreaterThan(0)
    const ids = (await results(servers?.prometheus_exemplars)).flatMap(({ exemplars = [] }) =>
      exemplars.map(({ labels }) => labels.trace_id),
    )
    const known = demo.document.requests.map((request) => request.trace_id)
    expect(ids.length).toBeGreaterThan(0)
    expect(known).toEqual(expect.arrayContaining(ids))
  })

  test('answers every query of every panel and rule, but for what this model does not have', async () => {
    const checks = await checkQueries(watched.stack.urls.prometheus, { excuses, rangeSeconds: 900 })
    expect(failures(checks)).toEqual([])
    // Nothing is excused that has data.
    const excused = checks.filter(({ outcome }) => outcome === 'excused')
    expect(excused.length).toBeLessThan(checks.length / 4)
  })

  test('loses no span and no count while the Collector is dead for a minute', async () => {
    const { collector } = watched.stack.servers
    const interrupted = askOne('Name three rivers.')
    await sleep(500)
    await collector.kill()
    const died = performance.now()
    const answers = [await interrupted]
    for (const question of ['What is snow?', 'Who was Ada Lovelace?', 'What is 2 plus 2?']) {
      answers.push(await askOne(question))
    }
    await sleep(Math.max(0, 60_000 - (performance.now() - died)))
    expect(collector.pid()).toBeUndefined()
    expect(await readTrace(watched.stack.urls.jaeger, answers.at(-1)?.traceId ?? '')).toEqual([])
    await collector.start()
    for (const { traceId } of answers) expect(edges(await wholeTrace(traceId))).toEqual(wholeTree)
    await settle(watched, asked.length)
    expect(await counted()).toEqual(truth())
    const lost = 'sum(ring2_export_lost_spans_total)'
    expect(await queryNumber(watched.stack.urls.prometheus, lost)).toBe(0)
  }, 240_000)

  test('keeps in production’s tail sampling the request that broke, and drops a healthy one', async () => {
    const { stack } = watched
    await stack.servers.collector.stop()
    const command = serverCommand('collector', {
      binaries: requireStackBinaries(),
      folder: stack.folder,
      ports: stack.ports,
      collectorConfig: join(otelConfig, 'collector', 'production.yaml'),
      environment: {
        TAIL_SAMPLING_BASE_PERCENTAGE: '0',
        // The exporter's spans may come long after the app's where the machine is busy.
        TAIL_SAMPLING_DECISION_WAIT: '30s',
        RING2_TAP_ENDPOINT: `${watched.api}/otlp`,
      },
    })
    const production = createServerProcess(command, join(stack.folder, 'production.log'))
    await production.start()
    try {
      const fine = await askOne('What is the capital of Spain?')
      await injectFault(watched.service, demoFault)
      const odd = await askOne('What is the capital of Italy?')
      await removeFault(watched.service)
      expect(await wholeTrace(odd.traceId).then(edges)).toEqual(wholeTree)
      // Judged in the order in which they came, so this one has been judged before.
      expect(await readTrace(stack.urls.jaeger, fine.traceId)).toEqual([])
      // What is sampled away as a trace is counted all the same.
      await settle(watched, asked.length)
      expect(await counted()).toEqual(truth())
    } finally {
      await production.stop()
      await stack.servers.collector.start()
    }
  }, 240_000)

  test('ends in order', async () => {
    expect(await watched.stop()).toBe(true)
  })
})
