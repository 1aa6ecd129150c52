import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { withClientSpan } from '../../exporter/demo/client-span.ts'
import { engines } from '../../exporter/demo/engines.ts'
import { waitForTrace } from '../../exporter/demo/jaeger.ts'
import { startExporter, stopParts } from '../../exporter/demo/parts.ts'
import { demoEnvironment } from '../engines/llama/engine.ts'
import { histogramDocument, newTraceId, tracesDocument } from '../helpers/otlp-json.ts'
import {
  eventually,
  jaegerTrace,
  promExemplars,
  promQuery,
  sendOtlp,
  stackIsThere,
  startTestStack,
  type TestStack,
} from '../helpers/stack.ts'

const model = 'test-model'
const spanId = '00f067aa0ba902b7'

/** A page as the exporter's /metrics writes it. */
function openMetricsPage(traceId: string): string {
  return [
    '# TYPE ring2_scraped histogram',
    'ring2_scraped_bucket{le="1.0"} 3',
    `ring2_scraped_bucket{le="+Inf"} 4 # {trace_id="${traceId}",span_id="${spanId}"} 7.5`,
    'ring2_scraped_count 4',
    'ring2_scraped_sum 9.5',
    '# EOF',
    '',
  ].join('\n')
}

describe.runIf(stackIsThere())('collector/jaeger-prometheus.yaml', () => {
  let stack: TestStack
  const scrapedTrace = newTraceId()
  const page = createServer((_request, response) => {
    response.setHeader('content-type', 'application/openmetrics-text; version=1.0.0; charset=utf-8')
    response.end(openMetricsPage(scrapedTrace))
  })

  beforeAll(async () => {
    await new Promise<void>((resolve) => {
      page.listen(0, '127.0.0.1', resolve)
    })
    const { port } = page.address() as AddressInfo
    stack = await startTestStack({ scrapeTarget: `127.0.0.1:${port}` })
  })

  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
    page.close()
  })

  test('brings a span to Jaeger with its parent, its service and its attributes', async () => {
    const traceId = newTraceId()
    const document = tracesDocument([
      { traceId, spanId, name: 'POST /chat', service: 'chat-service' },
      {
        traceId,
        parentSpanId: spanId,
        name: 'ring2 request',
        service: 'ring2-exporter',
        scope: 'ring2-exporter',
        attributes: { 'ring2.anomaly': true },
      },
    ])
    expect(await sendOtlp(stack.urls.otlpHttp, 'traces', document)).toBe(200)
    const trace = await eventually(() => jaegerTrace(stack, traceId), 'the trace in Jaeger')
    const request = trace.spans.find((span) => span.operationName === 'ring2 request')
    expect(trace.spans).toHaveLength(2)
    expect(request?.references).toMatchObject([{ refType: 'CHILD_OF', spanID: spanId }])
    expect(request?.tags).toContainEqual({ key: 'ring2.anomaly', type: 'bool', value: true })
    expect(trace.processes[request?.processID ?? '']?.serviceName).toBe('ring2-exporter')
  })

  test('shows a request to llama-server as one trace: the client, and ring2 beneath it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ring2-llama-traced-'))
    const parts = { processes: [], folder, segment: `llama-traced-${process.pid}` }
    Object.assign(process.env, demoEnvironment)
    try {
      const endpoint = stack.urls.otlpGrpc
      await startExporter(parts, { store: join(folder, 'store'), endpoint })
      const { ask } = await engines['llama.cpp'].start(parts, { endpoint })
      const { traceId, ancestry } = await withClientSpan(ask, stack.urls.otlpHttp)('Say hello.')
      const spans = await waitForTrace(stack.urls.jaeger, traceId, ancestry)
      const names = new Map(spans.map((span) => [span.spanId, `${span.service} ${span.name}`]))
      const edges = spans.map(
        ({ spanId, parentSpanId }) => `${names.get(parentSpanId ?? '')} > ${names.get(spanId)}`,
      )
      expect(edges.sort()).toEqual([
        'chat-client chat > ring2-exporter ring2 request',
        'ring2-exporter ring2 request > ring2-exporter ring2 decode',
        'ring2-exporter ring2 request > ring2-exporter ring2 prefill',
        'undefined > chat-client chat',
      ])
    } finally {
      await stopParts(parts, () => {})
      rmSync(folder, { recursive: true })
    }
  }, 240_000)

  test('brings an exponential histogram to Prometheus whole, with its exemplar', async () => {
    const traceId = newTraceId()
    const document = histogramDocument({
      name: 'ring2.test.entropy',
      unit: '{nat}',
      attributes: { 'gen_ai.request.model': model },
      bucketCounts: [1, 2, 5],
      sum: 33.5,
      exemplar: { traceId, spanId, value: 7.25 },
    })
    expect(await sendOtlp(stack.urls.otlpHttp, 'metrics', document)).toBe(200)
    const [series] = await eventually(async () => {
      const found = await promQuery(stack, 'ring2_test_entropy')
      return found.length > 0 ? found : undefined
    }, 'the series in Prometheus')
    expect(series?.metric).toMatchObject({
      gen_ai_request_model: model,
      service_name: 'ring2-exporter',
      service_instance_id: 'one',
      host_name: 'here',
    })
    expect(series?.histogram?.[1]).toMatchObject({ count: '8', sum: '33.5' })
    // Bucket boundaries of scale 0 are powers of two, exactly.
    expect(series?.histogram?.[1].buckets?.map(([, from, to, count]) => [from, to, count])).toEqual(
      [
        ['1', '2', '1'],
        ['2', '4', '2'],
        ['4', '8', '5'],
      ],
    )
    const [quantile] = await promQuery(stack, 'histogram_quantile(1, ring2_test_entropy)')
    expect(Number(quantile?.value?.[1])).toBe(8)
    const exemplars = await promExemplars(stack, 'ring2_test_entropy')
    expect(exemplars).toMatchObject([
      { labels: { trace_id: traceId, span_id: spanId }, value: '7.25' },
    ])
  })

  test('lets Prometheus read /metrics instead, exemplars and all', async () => {
    const exemplars = await eventually(async () => {
      const found = await promExemplars(stack, 'ring2_scraped_bucket')
      return found.length > 0 ? found : undefined
    }, 'a scraped exemplar')
    expect(exemplars[0]?.labels).toEqual({ trace_id: scrapedTrace, span_id: spanId })
    const [series] = await promQuery(stack, 'ring2_scraped_bucket{le="1.0"}')
    expect(series?.metric).toMatchObject({ job: 'ring2-exporter', service_name: 'ring2-exporter' })
    expect(series?.value?.[1]).toBe('3')
  })

  test('shows the Collector’s own metrics in Prometheus', async () => {
    const [series] = await eventually(async () => {
      const found = await promQuery(stack, 'up{job="otelcol"} == 1')
      return found.length > 0 ? found : undefined
    }, 'the Collector scraped')
    expect(series?.value?.[1]).toBe('1')
  })

  test('acknowledges nothing while Jaeger is away, so the sender keeps it', async () => {
    const traceId = newTraceId()
    const document = tracesDocument([{ traceId, name: 'kept by the sender' }])
    await stack.servers.jaeger.kill()
    expect(await sendOtlp(stack.urls.otlpHttp, 'traces', document)).toBe(503)
    await stack.servers.jaeger.start()
    await eventually(async () => {
      const status = await sendOtlp(stack.urls.otlpHttp, 'traces', document)
      return status === 200 ? status : undefined
    }, 'an acknowledgement')
    // Acknowledged means delivered: the trace is there at once.
    expect((await jaegerTrace(stack, traceId))?.spans).toHaveLength(1)
  })
})
