/**
 * Trace context that comes from elsewhere, through the real exporter: spans of an engine sent by
 * OTLP over HTTP give requests their trace, in time, before it and too late.
 */
import { gzipSync } from 'node:zlib'
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer'
import { type ReadableSpan, TracerProvider } from '@opentelemetry/sdk-trace'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { deriveSpanId, deriveTraceId } from '../../collector/ids.ts'
import { plainAttributes, type Receiver, startReceiver } from '../helpers/otlp-receiver.ts'
import { openProducer, type TestProducer } from '../helpers/producer.ts'
import { endRequest, writeStep } from '../helpers/requests.ts'
import { createWorkspace, type Exporter, killAll, runExporter, startExporter } from './processes.ts'

const wait = { timeout: 30_000, interval: 100 }
const token = 'a-token-of-the-test'
const headers = { authorization: `Bearer ${token}` }

const workspace = createWorkspace()
let receiver: Receiver
let exporter: Exporter
let producer: TestProducer

const settings = (waitSeconds: string) => ({
  RING2_TELEMETRY_ENDPOINT: receiver.url,
  RING2_TELEMETRY_TAP: 'true',
  RING2_TELEMETRY_TAP_WAIT_SECONDS: waitSeconds,
  RING2_API_TOKEN: token,
})

beforeAll(async () => {
  receiver = await startReceiver()
  exporter = await startExporter(workspace, settings('3'))
  producer = openProducer({ directory: workspace.segments, name: 'chat' })
  producer.model()
})

afterAll(async () => {
  producer?.close()
  killAll()
  await receiver?.stop()
  workspace.remove()
})

let nextKey = 1

/** A whole request without, or with, a context of its own. */
function write(requestId: string, facts: Record<string, unknown> = {}): void {
  const key = nextKey++
  producer.request({ key, request_id: requestId, ...facts })
  for (const step of [0, 1]) writeStep(producer, key, step, 3)
  endRequest(producer, key, 3, 2)
}

/** An engine's span of the request, as a real SDK makes and serializes it. */
async function sendSpan(requestId: string, startedAt = Date.now() - 500) {
  const ended: ReadableSpan[] = []
  const processor = {
    onStart: () => undefined,
    onEnd: (span: ReadableSpan) => void ended.push(span),
    forceFlush: async () => undefined,
    shutdown: async () => undefined,
  }
  const tracer = new TracerProvider({ spanProcessors: [processor] }).getTracer('vllm.llm_engine')
  const span = tracer.startSpan('llm_request', { startTime: startedAt })
  span.setAttribute('gen_ai.request.id', requestId)
  span.end(Date.now() + 500)
  const body = ProtobufTraceSerializer.serializeRequest(ended)
  const answer = await fetch(`${exporter.url}/otlp/v1/traces`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/x-protobuf', 'content-encoding': 'gzip' },
    body: gzipSync(body ?? new Uint8Array()),
  })
  expect(answer.status).toBe(200)
  return span.spanContext()
}

const spanOf = (requestId: string, traceId?: string) =>
  receiver.spans().find((span) => {
    const id = plainAttributes(span.attributes)['ring2.request.id']
    const fits = traceId === undefined || span.traceId === traceId
    return span.name === 'ring2 request' && id === requestId && fits
  })

async function request(path: string) {
  const answer = await fetch(`${exporter.url}${path}`, { headers })
  return { status: answer.status, json: (await answer.json()) as Record<string, unknown> }
}

/** Value of a counter on /metrics, by its name and a label. */
async function counter(name: string, label = ''): Promise<number> {
  const page = await (await fetch(`${exporter.url}/metrics`, { headers })).text()
  const line = page.split('\n').find((one) => one.startsWith(name) && one.includes(label))
  return Number(line?.split(' ').at(1) ?? Number.NaN)
}

test("an engine's span becomes the parent of the request, whose tensors its trace finds", async () => {
  const internal = 'chatcmpl-a-0a1b2c3d'
  write(internal)
  // Its rows are stored before anything is known of its trace.
  const derived = deriveTraceId(internal)
  await vi.waitUntil(async () => (await request(`/v1/traces/${derived}`)).status === 200, wait)
  const { traceId, spanId } = await sendSpan('chatcmpl-a')
  await vi.waitUntil(() => spanOf(internal) !== undefined, wait)
  const span = spanOf(internal)
  expect(span).toMatchObject({
    traceId,
    parentSpanId: spanId,
    spanId: deriveSpanId(traceId, internal, 'request'),
  })
  expect(plainAttributes(span?.attributes)).toMatchObject({
    'ring2.trace.origin': 'tap',
    'ring2.tensors.url': `${exporter.url}/t/${derived}`,
  })
  await vi.waitUntil(async () => (await request(`/v1/traces/${traceId}`)).status === 200, wait)
  const { json } = await request(`/v1/traces/${traceId}`)
  expect(json.requests).toMatchObject([
    { request_id: internal, trace_id: derived, caller_trace_id: traceId },
  ])
  const tensor = await fetch(`${exporter.url}/v1/traces/${traceId}/tensors/resid_pre/1`, {
    headers,
  })
  expect(tensor.status).toBe(200)
  expect(receiver.spans().some((one) => one.traceId === derived)).toBe(false)
  const listed = runExporter(workspace, ['ls', traceId, '--json'])
  expect(JSON.parse(listed.stdout).requests).toMatchObject([{ request_id: internal }])
  const folder = `${workspace.out}/fetched`
  const fetched = runExporter(workspace, ['fetch', traceId, '--hook', 'resid_pre', '-o', folder])
  expect(fetched).toMatchObject({ code: 0 })
  // Exemplars of the request name the caller's trace.
  const page = await (await fetch(`${exporter.url}/metrics`, { headers })).text()
  expect(page).toContain(`trace_id="${traceId}"`)
  expect(page).not.toContain(derived)
})

test('a span that is sent before the request ends gives the rows its trace', async () => {
  const { traceId } = await sendSpan('chatcmpl-b', Date.now() - 1000)
  write('chatcmpl-b')
  await vi.waitUntil(() => spanOf('chatcmpl-b') !== undefined, wait)
  expect(spanOf('chatcmpl-b')?.traceId).toBe(traceId)
  await vi.waitUntil(async () => (await request(`/v1/traces/${traceId}`)).status === 200, wait)
  expect((await request(`/v1/traces/${traceId}`)).json.requests).toMatchObject([
    { trace_id: traceId, caller_trace_id: null },
  ])
})

test('a span that comes too late moves the request all the same, with a link', async () => {
  write('chatcmpl-c')
  await vi.waitUntil(() => spanOf('chatcmpl-c') !== undefined, wait)
  const derived = deriveTraceId('chatcmpl-c')
  expect(spanOf('chatcmpl-c')).toMatchObject({ traceId: derived })
  const { traceId, spanId } = await sendSpan('chatcmpl-c', Date.now() - 60_000)
  await vi.waitUntil(() => spanOf('chatcmpl-c', traceId) !== undefined, wait)
  expect(spanOf('chatcmpl-c', traceId)).toMatchObject({
    parentSpanId: spanId,
    links: [{ traceId: derived, spanId: deriveSpanId(derived, 'chatcmpl-c', 'request') }],
  })
  await vi.waitUntil(async () => (await request(`/v1/traces/${traceId}`)).status === 200, wait)
})

test('what has context of its own does not wait, and a malformed one is counted', async () => {
  const trace = 'a1'.repeat(16)
  write('own', { traceparent: `00-${trace}-${'b2'.repeat(8)}-01` })
  write('malformed', { traceparent: `00-${'0'.repeat(32)}-${'b2'.repeat(8)}-01` })
  await vi.waitUntil(() => spanOf('own') !== undefined, wait)
  await vi.waitUntil(() => spanOf('malformed') !== undefined, wait)
  expect(spanOf('own')?.traceId).toBe(trace)
  expect(spanOf('malformed')?.traceId).toBe(deriveTraceId('malformed'))
  const origins = 'ring2_context_requests_total'
  await vi.waitUntil(async () => (await counter(origins, '"request"')) === 1, wait)
  expect(await counter(origins, '"tap"')).toBe(2)
  expect(await counter(origins, '"derived"')).toBe(2)
  expect(await counter('ring2_context_rejected_total', '"traceparent_zero_id"')).toBe(1)
  expect(await counter('ring2_context_received_total')).toBe(3)
  expect(await counter('ring2_context_late_requests_total')).toBe(1)
})

test('a span of impossible times is counted, and stands in the way of no other', async () => {
  write('chatcmpl-e')
  const derived = deriveTraceId('chatcmpl-e')
  await vi.waitUntil(async () => (await request(`/v1/traces/${derived}`)).status === 200, wait)
  for (const [start, end] of [
    ['"18446744073709551614"', '"18446744073709551615"'],
    ['1e400', '1e400'],
  ]) {
    const span = `{"traceId":"${'e5'.repeat(16)}","spanId":"${'e5'.repeat(8)}",
      "startTimeUnixNano":${start},"endTimeUnixNano":${end},
      "attributes":[{"key":"ring2.request.id","value":{"stringValue":"chatcmpl-e"}}]}`
    const answer = await fetch(`${exporter.url}/otlp/v1/traces`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: `{"resourceSpans":[{"scopeSpans":[{"spans":[${span}]}]}]}`,
    })
    expect(await answer.json()).toMatchObject({ partialSuccess: { rejectedSpans: '1' } })
  }
  await vi.waitUntil(() => spanOf('chatcmpl-e') !== undefined, wait)
  expect(spanOf('chatcmpl-e')?.traceId).toBe(derived)
  write('after', { traceparent: `00-${'a7'.repeat(16)}-${'b2'.repeat(8)}-01` })
  await vi.waitUntil(() => spanOf('after') !== undefined, wait)
  const rejected = 'ring2_context_rejected_total'
  await vi.waitUntil(async () => (await counter(rejected, '"span_time"')) === 2, wait)
})

test("the caller's trace finds the tensors after a restart; a stop does not wait for spans", async () => {
  type Listed = { caller_trace_id: string | null }
  const traces = (await request('/v1/traces')).json.traces as Listed[]
  const callers = traces.flatMap((one) => one.caller_trace_id ?? [])
  expect(callers).toHaveLength(2)
  write('chatcmpl-d')
  await vi.waitUntil(
    async () => (await request(`/v1/traces/${deriveTraceId('chatcmpl-d')}`)).status === 200,
    wait,
  )
  expect(await exporter.stop()).toBe(0)
  expect(spanOf('chatcmpl-d')?.traceId).toBe(deriveTraceId('chatcmpl-d'))
  const rebuilt = runExporter(workspace, ['catalog', 'rebuild'])
  expect(rebuilt.code).toBe(0)
  exporter = await startExporter(workspace, settings('3'))
  for (const traceId of callers) {
    expect((await request(`/v1/traces/${traceId}`)).status).toBe(200)
  }
  expect(await exporter.stop()).toBe(0)
})
