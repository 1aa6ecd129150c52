import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { otelConfig } from '../../exporter/demo/stack/commands.ts'
import { newTraceId, tracesDocument } from '../helpers/otlp-json.ts'
import {
  eventually,
  jaegerTrace,
  sendOtlp,
  stackIsThere,
  startTestStack,
  type TestStack,
} from '../helpers/stack.ts'

const collectorConfig = join(otelConfig, 'collector', 'production.yaml')

interface Tapped {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** Stands where the exporter's OTLP/HTTP receiver is, and keeps what it gets. */
async function startTap() {
  const requests: Tapped[] = []
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { url: path = '', headers } = request
    requests.push({ path, headers, body: Buffer.concat(chunks) })
    response.setHeader('content-type', 'application/x-protobuf')
    response.end()
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  const received = () => Buffer.concat(requests.map(({ body }) => body)).toString('latin1')
  return { url: `http://127.0.0.1:${port}/otlp`, requests, received, close: () => server.close() }
}

describe.runIf(stackIsThere())('collector/production.yaml', () => {
  let stack: TestStack
  let tap: Awaited<ReturnType<typeof startTap>>

  beforeAll(async () => {
    tap = await startTap()
    stack = await startTestStack({
      collectorConfig,
      servers: ['collector', 'jaeger'],
      environment: {
        TAIL_SAMPLING_BASE_PERCENTAGE: '0',
        TAIL_SAMPLING_DECISION_WAIT: '2s',
        RING2_TAP_ENDPOINT: tap.url,
        RING2_TAP_TOKEN: 'secret-of-the-test',
      },
    })
  })

  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
    tap?.close()
  })

  const send = async (document: unknown): Promise<void> => {
    expect(await sendOtlp(stack.urls.otlpHttp, 'traces', document)).toBe(200)
  }
  const inJaeger = (traceId: string) =>
    eventually(() => jaegerTrace(stack, traceId), `trace ${traceId} in Jaeger`)

  test('keeps the traces with an anomaly or an error, whole, and no others', async () => {
    const [odd, failed, plain] = [newTraceId(), newTraceId(), newTraceId()]
    const anomaly = { 'ring2.anomaly': true }
    await send(
      tracesDocument([
        { traceId: plain, name: 'POST /chat' },
        { traceId: plain, name: 'ring2 request', attributes: { 'ring2.anomaly': false } },
        { traceId: odd, name: 'POST /chat' },
        { traceId: failed, name: 'POST /chat', error: true },
      ]),
    )
    // The exporter's span comes by itself, after the application's.
    await send(tracesDocument([{ traceId: odd, name: 'ring2 request', attributes: anomaly }]))
    const names = await eventually(async () => {
      const found = (await jaegerTrace(stack, odd))?.spans.map((span) => span.operationName)
      return found?.includes('POST /chat') ? found.sort() : undefined
    }, 'the whole trace')
    expect(names).toEqual(['POST /chat', 'ring2 request'])
    await inJaeger(failed)
    // The three were judged at the same tick; two of them have arrived, so this one has been dropped.
    expect(await jaegerTrace(stack, plain)).toBeUndefined()
  })

  /** Sends a trace that will be dropped, and waits until it has been. */
  const sendDropped = async (): Promise<string> => {
    const [dropped, marker] = [newTraceId(), newTraceId()]
    await send(
      tracesDocument([
        { traceId: dropped, name: 'POST /chat' },
        { traceId: marker, name: 'POST /chat', error: true },
      ]),
    )
    // Both were judged at the same tick.
    await inJaeger(marker)
    return dropped
  }

  test('keeps an anomaly that is found after its trace was dropped, and what follows it', async () => {
    const late = await sendDropped()
    await sendDropped()
    const anomaly = { 'ring2.anomaly': true }
    await send(
      tracesDocument([
        { traceId: late, name: 'ring2 decode' },
        { traceId: late, name: 'ring2 request', attributes: anomaly },
      ]),
    )
    await inJaeger(late)
    await send(tracesDocument([{ traceId: late, name: 'ring2 step' }]))
    const names = await eventually(async () => {
      const spans = (await jaegerTrace(stack, late))?.spans ?? []
      return spans.length > 2 ? spans.map((span) => span.operationName).sort() : undefined
    }, 'the span that follows')
    expect(names).toEqual(['ring2 decode', 'ring2 request', 'ring2 step'])
  })

  test('hands the engine’s spans to the tap, with the token, and never our own', async () => {
    const traceId = newTraceId()
    const id = 'gen_ai.request.id'
    await send(
      tracesDocument([
        { traceId, name: 'app without an id' },
        { traceId, name: 'ring2 request', scope: 'ring2-exporter', attributes: { [id]: 'ours' } },
        { traceId, name: 'llm_request', scope: 'vllm', attributes: { [id]: 'chatcmpl-tapped' } },
      ]),
    )
    await eventually(() => tap.received().includes('chatcmpl-tapped') || undefined, 'the tap')
    expect(tap.received()).toContain('llm_request')
    expect(tap.received()).not.toContain('ours')
    expect(tap.received()).not.toContain('app without an id')
    expect(tap.requests.at(-1)?.path).toBe('/otlp/v1/traces')
    expect(tap.requests.at(-1)?.headers).toMatchObject({
      'content-type': 'application/x-protobuf',
      authorization: 'Bearer secret-of-the-test',
    })
  })

  test('delivers what it has queued on disk after it was killed and Jaeger has come back', async () => {
    const traces = Array.from({ length: 50 }, newTraceId)
    await stack.servers.jaeger.kill()
    await send(
      tracesDocument(
        traces.map((traceId) => ({
          traceId,
          name: 'ring2 request',
          attributes: { 'ring2.anomaly': true },
        })),
      ),
    )
    await eventually(async () => {
      const text = await (await fetch(stack.urls.collectorMetrics)).text()
      const held = /^otelcol_exporter_queue_size\{[^}]*exporter="otlp_grpc\/jaeger"[^}]*\} (\d+)/m
      const sampled =
        /^otelcol_processor_tail_sampling_global_count_traces_sampled\S*\{[^}]*sampled="true"[^}]*\} (\d+)/m
      const decided = Number(sampled.exec(text)?.[1] ?? 0)
      return held.test(text) && decided >= traces.length ? decided : undefined
    }, 'the queue on disk')
    await stack.servers.collector.kill()
    await stack.servers.jaeger.start()
    expect(await jaegerTrace(stack, traces[0] ?? '')).toBeUndefined()
    await stack.servers.collector.start()
    for (const traceId of traces) expect((await inJaeger(traceId)).spans).toHaveLength(1)
  })
})
