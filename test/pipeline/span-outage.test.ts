/**
 * Spans that wait for a Collector that is away when the exporter is killed, or stopped: the next
 * exporter sends them, and the one after it sends nothing twice.
 */
import { createServer } from 'node:net'
import { afterAll, expect, onTestFinished, test, vi } from 'vitest'
import { plainAttributes, type Receiver, startReceiver } from '../helpers/otlp-receiver.ts'
import { openProducer } from '../helpers/producer.ts'
import { writeRequest } from '../helpers/requests.ts'
import { createWorkspace, type Exporter, get, killAll, startExporter } from './processes.ts'

const wait = { timeout: 60_000, interval: 100 }
const requestCount = 100

afterAll(killAll)

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => void server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function endedRequests(exporter: Exporter): Promise<number> {
  const page = (await get(`${exporter.url}/v1/traces?limit=500`)).json<{
    traces: { ended_at: unknown }[]
  }>()
  return page.traces.filter(({ ended_at }) => ended_at !== null).length
}

function requestsOf(receiver: Receiver): string[] {
  return receiver
    .spans()
    .filter(({ name }) => name === 'ring2 request')
    .map((span) => String(plainAttributes(span.attributes)['ring2.request.id']))
}

const expected = Array.from({ length: requestCount }, (_, index) => `request-${index + 1}`).sort()

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'a Collector that is away while the exporter gets %s gets every span from the next one',
  async (signal) => {
    const workspace = createWorkspace()
    onTestFinished(() => workspace.remove())
    const port = await freePort()
    const settings = { RING2_TELEMETRY_ENDPOINT: `http://127.0.0.1:${port}` }
    const first = await startExporter(workspace, settings)
    const producer = openProducer({ directory: workspace.segments, name: 'chat' })
    onTestFinished(() => producer.close())
    producer.model()
    for (let key = 1; key <= requestCount; key += 1) writeRequest(producer, key, 3, 2)
    await vi.waitUntil(async () => (await endedRequests(first)) === requestCount, wait)
    // What is left behind is told by the exit code.
    expect(await first.stop(signal)).toBe(signal === 'SIGKILL' ? 'SIGKILL' : 1)
    const receiver = await startReceiver(['--port', String(port)])
    onTestFinished(() => receiver.stop())
    const second = await startExporter(workspace, settings)
    await vi.waitUntil(() => new Set(requestsOf(receiver)).size === requestCount, wait)
    expect([...new Set(requestsOf(receiver))].sort()).toEqual(expected)
    expect(await second.stop()).toBe(0)
    const sent = receiver.spans().length
    const third = await startExporter(workspace, settings)
    writeRequest(producer, requestCount + 1, 3, 2)
    const last = `request-${requestCount + 1}`
    await vi.waitUntil(() => requestsOf(receiver).includes(last), wait)
    expect(await third.stop()).toBe(0)
    expect(receiver.spans()).toHaveLength(sent + 3)
  },
)

interface Context {
  readonly requestId: string
  readonly traceId: string
  readonly spanId: string
  readonly from: bigint
  readonly to: bigint
}

/** An engine's spans, one for each request, as OTLP has them in JSON. */
async function sendContexts(exporter: Exporter, contexts: readonly Context[]): Promise<void> {
  const spans = contexts.map(({ requestId, traceId, spanId, from, to }) => ({
    ...{ traceId, spanId, traceState: 'vendor=1', name: 'llm_request' },
    ...{ startTimeUnixNano: String(from), endTimeUnixNano: String(to) },
    attributes: [{ key: 'gen_ai.request.id', value: { stringValue: requestId } }],
  }))
  const answer = await fetch(`${exporter.url}/otlp/v1/traces`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] }),
  })
  expect(answer.status).toBe(200)
}

async function callersOf(exporter: Exporter): Promise<(string | null)[]> {
  const page = await get(`${exporter.url}/v1/traces?limit=500`)
  return page
    .json<{ traces: { caller_trace_id: string | null }[] }>()
    .traces.map((one) => one.caller_trace_id)
}

test("what a killed exporter could not send goes out in the callers' traces all the same", async () => {
  const workspace = createWorkspace()
  onTestFinished(() => workspace.remove())
  const port = await freePort()
  const settings = {
    RING2_TELEMETRY_ENDPOINT: `http://127.0.0.1:${port}`,
    RING2_TELEMETRY_TAP: 'true',
    RING2_TELEMETRY_TAP_WAIT_SECONDS: '3600',
  }
  const first = await startExporter(workspace, settings)
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  onTestFinished(() => producer.close())
  producer.model()
  const keys = [1, 2, 3, 4, 5]
  const from = BigInt(Date.now() - 60_000) * 1_000_000n
  for (const key of keys) writeRequest(producer, key, 3, 2)
  await vi.waitUntil(async () => (await endedRequests(first)) === keys.length, wait)
  const contexts = keys.map((key) => ({
    requestId: `request-${key}`,
    traceId: String(key).repeat(32),
    spanId: String(key).repeat(16),
    from,
    to: BigInt(Date.now() + 60_000) * 1_000_000n,
  }))
  await sendContexts(first, contexts)
  const traces = contexts.map(({ traceId }) => traceId)
  // A flush later it is written which traces they belong to.
  await vi.waitUntil(async () => !(await callersOf(first)).includes(null), wait)
  expect(await first.stop('SIGKILL')).toBe('SIGKILL')
  const receiver = await startReceiver(['--port', String(port)])
  onTestFinished(() => receiver.stop())
  const second = await startExporter(workspace, settings)
  await vi.waitUntil(() => requestsOf(receiver).length >= keys.length, wait)
  expect(await second.stop()).toBe(0)
  const sent = receiver.spans().filter(({ name }) => name === 'ring2 request')
  const told = sent
    .map((span) => ({
      traceId: span.traceId,
      parentSpanId: span.parentSpanId,
      traceState: span.traceState,
      requestId: plainAttributes(span.attributes)['ring2.request.id'],
      origin: plainAttributes(span.attributes)['ring2.trace.origin'],
    }))
    .sort((left, right) => (left.traceId < right.traceId ? -1 : 1))
  expect(told).toEqual(
    contexts.map(({ requestId, traceId, spanId }) => ({
      ...{ traceId, parentSpanId: spanId, traceState: 'vendor=1', requestId, origin: 'tap' },
    })),
  )
  // Phases too, and nothing in any other trace.
  expect(new Set(receiver.spans().map(({ traceId }) => traceId))).toEqual(new Set(traces))
  expect(receiver.spans()).toHaveLength(3 * keys.length)
})

test('switching OTLP on does not send what the store had before', async () => {
  const workspace = createWorkspace()
  onTestFinished(() => workspace.remove())
  const first = await startExporter(workspace)
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  onTestFinished(() => producer.close())
  producer.model()
  for (const key of [1, 2, 3]) writeRequest(producer, key, 3, 2)
  await vi.waitUntil(async () => (await endedRequests(first)) === 3, wait)
  expect(await first.stop()).toBe(0)
  const receiver = await startReceiver()
  onTestFinished(() => receiver.stop())
  const second = await startExporter(workspace, { RING2_TELEMETRY_ENDPOINT: receiver.url })
  writeRequest(producer, 4, 3, 2)
  await vi.waitUntil(() => requestsOf(receiver).includes('request-4'), wait)
  expect(await second.stop()).toBe(0)
  expect(requestsOf(receiver)).toEqual(['request-4'])
})
