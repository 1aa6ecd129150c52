import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { deriveSpanId, deriveTraceId } from '../../../collector/ids.ts'
import type { Finding, RequestSummary } from '../../../collector/records.ts'
import { loadConfig } from '../../../exporter/config.ts'
import { emptySnapshot } from '../../../exporter/telemetry/metric-points.ts'
import { startTelemetry, type Telemetry } from '../../../exporter/telemetry/sdk.ts'
import {
  type OtlpSpan,
  plainAttributes,
  type Receiver,
  startReceiver,
} from '../../helpers/otlp-receiver.ts'
import { PARENT, recordingLogger, requestSummary, START_MICROS, TRACE } from './fixtures.ts'

const WAIT_MILLIS = 60_000
vi.setConfig({ testTimeout: 2 * WAIT_MILLIS, hookTimeout: 2 * WAIT_MILLIS })

let receiver: Receiver
let telemetry: Telemetry | null = null

beforeEach(async () => {
  receiver = await startReceiver()
})
afterEach(async () => {
  await telemetry?.shutdown(WAIT_MILLIS)
  telemetry = null
  await receiver.stop()
})

function start(endpoint: string, environment: Record<string, string> = {}) {
  const { config } = loadConfig({
    environment: { RING2_TELEMETRY_ENDPOINT: endpoint, ...environment },
  })
  const { logger, messages } = recordingLogger()
  telemetry = startTelemetry({
    config,
    snapshot: () => emptySnapshot(START_MICROS),
    logger,
    version: '0.1.0',
  })
  return { telemetry, messages }
}

async function exported(summaries: readonly RequestSummary[]): Promise<OtlpSpan[]> {
  const { telemetry: started } = start(receiver.url)
  for (const summary of summaries) started.spans.finish(summary)
  expect(await started.flush(WAIT_MILLIS)).toBe(true)
  await started.shutdown(WAIT_MILLIS)
  return receiver.spans()
}

const named = (spans: readonly OtlpSpan[], name: string) => {
  const found = spans.find((span) => span.name === name)
  if (found === undefined) throw new Error(`no span ${name}`)
  return found
}

describe('the span tree', () => {
  it('hangs under the caller with the ids, times and kind that were given', async () => {
    const spans = await exported([requestSummary({}, { traceState: 'vendor=1,other=2' })])
    expect(spans).toHaveLength(3)
    const request = named(spans, 'ring2 request')
    expect(request).toMatchObject({
      traceId: TRACE,
      spanId: deriveSpanId(TRACE, 'chat-1', 'request'),
      parentSpanId: PARENT,
      traceState: 'vendor=1,other=2',
      kind: 'SPAN_KIND_INTERNAL',
      startTimeUnixNano: `${START_MICROS}000`,
      endTimeUnixNano: `${START_MICROS + 900_000}000`,
    })
    // Bit 8 says that bit 9 is known, and bit 9 that the parent is in another process.
    expect((request.flags ?? 0) & 0x300).toBe(0x300)
    for (const phase of ['prefill', 'decode']) {
      expect(named(spans, `ring2 ${phase}`)).toMatchObject({
        traceId: TRACE,
        spanId: deriveSpanId(TRACE, 'chat-1', phase),
        parentSpanId: request.spanId,
        traceState: 'vendor=1,other=2',
      })
    }
    expect(plainAttributes(named(spans, 'ring2 decode').attributes)).toMatchObject({
      'ring2.phase': 'decode',
      'ring2.tokens.start': 8,
      'ring2.tokens.end': 12,
      'ring2.steps': 4,
    })
  })

  it('is rooted in our own span when the request came without a caller', async () => {
    const traceId = deriveTraceId('chat-1')
    const request = { traceId, parentSpanId: null, traceOrigin: 'derived' as const }
    const spans = await exported([requestSummary({}, request)])
    const root = named(spans, 'ring2 request')
    expect(root.traceId).toBe(traceId)
    expect(root.parentSpanId ?? '').toBe('')
    expect(root.spanId).toBe(deriveSpanId(traceId, 'chat-1', 'request'))
    expect(named(spans, 'ring2 decode').parentSpanId).toBe(root.spanId)
  })

  it('is not exported for a caller that did not sample, and others are', async () => {
    const unsampled = requestSummary({}, { requestId: 'quiet', traceFlags: 0 })
    const spans = await exported([unsampled, requestSummary()])
    expect(
      new Set(spans.map((span) => plainAttributes(span.attributes)['ring2.request.id'])),
    ).toEqual(new Set(['chat-1']))
  })

  it('is the same, byte for byte, when it is exported again', async () => {
    const summary = requestSummary({ verdict: 'nonfinite', nan: 3 })
    const first = await exported([summary])
    const both = await exported([summary])
    expect(both).toHaveLength(6)
    expect(both.slice(3)).toEqual(first)
    const [before, after] = receiver.resources()
    expect(after).toEqual(before)
  })

  it('gives a phase that comes twice an id of its own', async () => {
    const { phases } = requestSummary()
    const spans = await exported([requestSummary({ phases: [...phases, ...phases] })])
    expect(new Set(spans.map((span) => span.spanId)).size).toBe(5)
  })
})

describe('the verdict', () => {
  it('is told by events inside the span: one per finding, and one in the standard words', async () => {
    const findings: Finding[] = [
      {
        verdict: 'collapsed',
        statistic: 'pattern.entropy_no_sink_mean',
        value: 0.079,
        bound: 0.1,
        direction: 'below',
        layer: 15,
        phase: 'decode',
      },
      {
        verdict: 'looping',
        statistic: 'token_ids.loop_period',
        value: 7,
        bound: 0,
        direction: 'above',
        layer: null,
      },
    ]
    const request = named(
      await exported([requestSummary({ verdict: 'collapsed', findings })]),
      'ring2 request',
    )
    const events = request.events ?? []
    for (const { timeUnixNano } of events) {
      expect(BigInt(timeUnixNano ?? 0)).toBeGreaterThanOrEqual(BigInt(request.startTimeUnixNano))
      expect(BigInt(timeUnixNano ?? 0)).toBeLessThanOrEqual(BigInt(request.endTimeUnixNano))
    }
    const found = events.filter(({ name }) => name === 'ring2.finding')
    expect(found.map(({ attributes }) => plainAttributes(attributes))).toEqual([
      {
        'ring2.finding.verdict': 'collapsed',
        'ring2.finding.statistic': 'pattern.entropy_no_sink_mean',
        'ring2.finding.value': 0.079,
        'ring2.finding.bound': 0.1,
        'ring2.finding.direction': 'below',
        'ring2.finding.layer': 15,
        'ring2.phase': 'decode',
      },
      {
        'ring2.finding.verdict': 'looping',
        'ring2.finding.statistic': 'token_ids.loop_period',
        'ring2.finding.value': 7,
        'ring2.finding.bound': 0,
        'ring2.finding.direction': 'above',
      },
    ])
    const sent = new Map((found[1]?.attributes ?? []).map(({ key, value }) => [key, value]))
    expect(sent.get('ring2.finding.value')).toEqual({ doubleValue: 7 })
    const [evaluation] = events.filter(({ name }) => name === 'gen_ai.evaluation.result')
    expect(plainAttributes(evaluation?.attributes)).toEqual({
      'gen_ai.evaluation.name': 'ring2.verdict',
      'gen_ai.evaluation.score.label': 'collapsed',
      'gen_ai.evaluation.explanation':
        'pattern.entropy_no_sink_mean 0.079 is below 0.1 in decode, layer 15 (collapsed); ' +
        'token_ids.loop_period 7 is above 0 (looping)',
    })
    expect(request.status?.code).toBeUndefined()
  })
})

describe('the types of attributes', () => {
  it('are double for statistics of any value, and integer for counts and layers', async () => {
    const values = [0.5, 264, -3, 0, 2 ** 33, -(2 ** 60), 1e30]
    const [request] = await exported([
      requestSummary(
        {
          layerSeries: { 'resid_pre.abs_max': [...values, null], 'resid_pre.l2_mean': [1, 2] },
          globals: { 'final_logits.entropy_mean': 4, 'final_logits.margin_mean': 2.5 },
        },
        { attributes: { retries: 3 } },
      ),
    ]).then((spans) => spans.filter(({ name }) => name === 'ring2 request'))
    const sent = new Map((request?.attributes ?? []).map(({ key, value }) => [key, value]))
    const doubles = (list: readonly number[]) => ({
      arrayValue: { values: list.map((doubleValue) => ({ doubleValue })) },
    })
    const integers = (list: readonly number[]) => ({
      arrayValue: { values: list.map((value) => ({ intValue: String(value) })) },
    })
    expect(sent.get('ring2.resid_pre.abs_max')).toEqual(doubles(values))
    expect(sent.get('ring2.resid_pre.l2_mean')).toEqual(doubles([1, 2]))
    expect(sent.get('ring2.final_logits.entropy_mean')).toEqual({ doubleValue: 4 })
    expect(sent.get('ring2.final_logits.margin_mean')).toEqual({ doubleValue: 2.5 })
    expect(sent.get('ring2.resid_pre.layers')).toEqual(integers([0, 1, 2, 3, 4, 5, 6]))
    expect(sent.get('ring2.resid_pre.l2_mean.layers')).toEqual(integers([0, 1]))
    expect(sent.get('ring2.tokens.total')).toEqual({ intValue: '12' })
    expect(sent.get('ring2.records.seen')).toEqual({ intValue: '20' })
    expect(sent.get('retries')).toEqual({ intValue: '3' })
  })
})

describe('the resource', () => {
  it('names the service and the host, and obeys OTEL_SERVICE_NAME', async () => {
    await exported([requestSummary()])
    expect(plainAttributes(receiver.resources()[0]?.attributes)).toMatchObject({
      'service.name': 'ring2-exporter',
      'service.version': '0.1.0',
      'host.name': expect.stringMatching(/./),
      'telemetry.sdk.language': 'nodejs',
    })
    process.env.OTEL_SERVICE_NAME = 'my-exporter'
    try {
      await exported([requestSummary()])
      expect(plainAttributes(receiver.resources().at(-1)?.attributes)['service.name']).toBe(
        'my-exporter',
      )
    } finally {
      delete process.env.OTEL_SERVICE_NAME
    }
  })
})

describe('delivery', () => {
  it('delivers every span of 20,000 that end in one tick', async () => {
    const { telemetry: started } = start(receiver.url)
    for (let index = 0; index < 20_000; index += 1) {
      started.spans.finish(requestSummary({ phases: [] }, { requestId: `chat-${index}` }))
    }
    expect(await started.flush(WAIT_MILLIS)).toBe(true)
    const spans = receiver.spans()
    expect(spans).toHaveLength(20_000)
    expect(new Set(spans.map((span) => span.spanId)).size).toBe(20_000)
    expect(started.status().spans).toMatchObject({ delivered: 20_000, pending: 0 })
  })

  it('loses nothing while the Collector is not there, and says so once', async () => {
    const { port } = receiver
    await receiver.stop()
    const { telemetry: started, messages } = start(`http://127.0.0.1:${port}`)
    for (let index = 0; index < 50; index += 1) {
      started.spans.finish(requestSummary({}, { requestId: `chat-${index}` }))
    }
    expect(await started.flush(1500)).toBe(false)
    expect(started.status().spans).toMatchObject({ delivered: 0, pending: 150 })
    expect(started.status().spans.failing).toContain('UNAVAILABLE')
    receiver = await startReceiver(['--port', String(port)])
    expect(await started.flush(WAIT_MILLIS)).toBe(true)
    expect(receiver.spans()).toHaveLength(150)
    const telling = messages().filter((message) =>
      /Collector to take the spans|spans again/.test(message),
    )
    expect(telling).toHaveLength(2)
  })

  it('gets through a Collector that answers UNAVAILABLE at first', async () => {
    await receiver.stop()
    receiver = await startReceiver(['--fail-first', '2'])
    const spans = await exported([requestSummary()])
    expect(spans).toHaveLength(3)
  })

  it('counts spans that the Collector refuses for good', async () => {
    await receiver.stop()
    receiver = await startReceiver(['--reject'])
    const { telemetry: started } = start(receiver.url)
    started.spans.finish(requestSummary())
    await started.flush(WAIT_MILLIS)
    expect(started.status().spans.lost).toEqual({ queue_full: 0, rejected: 3, shutdown: 0 })
    expect(started.metricsPage().body).toContain(
      'ring2_export_lost_spans_total{error_type="rejected"} 3.0',
    )
  })

  it('splits batches that are larger than the Collector takes', async () => {
    await receiver.stop()
    receiver = await startReceiver(['--max-message-bytes', '20000'])
    const summaries = Array.from({ length: 100 }, (_, index) =>
      requestSummary({}, { requestId: `chat-${index}` }),
    )
    expect(await exported(summaries)).toHaveLength(300)
  })

  it('sends what waits when it is shut down', async () => {
    const { telemetry: started } = start(receiver.url)
    started.spans.finish(requestSummary())
    await started.shutdown(WAIT_MILLIS)
    expect(receiver.spans()).toHaveLength(3)
  })

  it('ends a shutdown without a Collector in time, and counts what was lost', async () => {
    const { port } = receiver
    await receiver.stop()
    const { telemetry: started, messages } = start(`http://127.0.0.1:${port}`)
    started.spans.finish(requestSummary())
    await started.shutdown(1000)
    expect(started.status().spans.lost.shutdown).toBe(3)
    expect(messages()).toContain('spans were lost')
    receiver = await startReceiver()
  })

  it('sends nothing when OTLP is off', async () => {
    const { telemetry: started, messages } = start(receiver.url, { RING2_TELEMETRY_OTLP: 'off' })
    started.spans.finish(requestSummary())
    expect(await started.flush(WAIT_MILLIS)).toBe(true)
    await started.shutdown(WAIT_MILLIS)
    expect(receiver.spans()).toEqual([])
    expect(messages()).toEqual(['OTLP is off: telemetry.otlp is off'])
  })

  it('finds the endpoint in OTEL_EXPORTER_OTLP_ENDPOINT', async () => {
    process.env.OTEL_EXPORTER_OTLP_ENDPOINT = receiver.url
    try {
      const { config } = loadConfig({ environment: {} })
      const { logger } = recordingLogger()
      const snapshot = () => emptySnapshot(START_MICROS)
      telemetry = startTelemetry({ config, snapshot, logger, version: '0.1.0' })
      telemetry.spans.finish(requestSummary())
      expect(await telemetry.flush(WAIT_MILLIS)).toBe(true)
      expect(receiver.spans()).toHaveLength(3)
    } finally {
      delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT
    }
  })

  it('refuses an endpoint that is no URL', () => {
    expect(() => start('http://:')).toThrow(/RING2_E_CONFIG.*URL/)
  })
})
