/**
 * The engine's own spans as the source of trace context, on real servers: the Collector hands them on to
 * the exporter, whose request then hangs under them in Jaeger.
 */
import { createServer } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newTraceId, tracesDocument } from '../helpers/otlp-json.ts'
import { openProducer } from '../helpers/producer.ts'
import { endRequest, writeStep } from '../helpers/requests.ts'
import {
  eventually,
  jaegerTrace,
  sendOtlp,
  stackIsThere,
  startTestStack,
} from '../helpers/stack.ts'
import { createWorkspace, killAll, startExporter } from '../pipeline/processes.ts'

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

describe.runIf(stackIsThere())('The tap', () => {
  test('puts a request without context under the engine’s span, external id against internal', async () => {
    const port = await freePort()
    await using stack = await startTestStack({
      servers: ['collector', 'jaeger'],
      environment: { RING2_TAP_ENDPOINT: `http://127.0.0.1:${port}/otlp` },
    })
    const workspace = createWorkspace()
    onTestFinished(() => {
      killAll()
      workspace.remove()
    })
    const exporter = await startExporter(workspace, {
      RING2_TELEMETRY_ENDPOINT: stack.urls.otlpGrpc,
      RING2_TELEMETRY_TAP: 'true',
      RING2_TELEMETRY_TAP_WAIT_SECONDS: '60',
      RING2_API_PORT: String(port),
    })
    const producer = openProducer({ directory: workspace.segments, name: 'engine' })
    onTestFinished(() => producer.close())
    producer.model()
    // As vLLM does it: the engine adds eight hexadecimal digits to the caller's id.
    producer.request({ key: 1, request_id: 'chatcmpl-7-0a1b2c3d' })
    for (const step of [0, 1]) writeStep(producer, 1, step, 3)
    endRequest(producer, 1, 3, 2)

    const traceId = newTraceId()
    const spanId = '00f067aa0ba902b7'
    const engine = { traceId, spanId, name: 'llm_request', service: 'engine', scope: 'vllm' }
    const attributes = { 'gen_ai.request.id': 'chatcmpl-7' }
    const document = tracesDocument([{ ...engine, attributes }])
    expect(await sendOtlp(stack.urls.otlpHttp, 'traces', document)).toBe(200)

    const trace = await eventually(async () => {
      const found = await jaegerTrace(stack, traceId)
      const names = found?.spans.map(({ operationName }) => operationName) ?? []
      return names.includes('ring2 request') ? found : undefined
    }, 'the request under the engine’s span')
    const request = trace.spans.find(({ operationName }) => operationName === 'ring2 request')
    expect(request?.references).toMatchObject([{ refType: 'CHILD_OF', spanID: spanId }])
    expect(request?.tags.find(({ key }) => key === 'ring2.trace.origin')?.value).toBe('tap')
    const parent = trace.spans.find(({ operationName }) => operationName === 'llm_request')
    if (request === undefined || parent === undefined) expect.fail('a span is missing')
    expect(request.startTime).toBeGreaterThanOrEqual(parent.startTime)
    expect(request.startTime + request.duration).toBeLessThanOrEqual(
      parent.startTime + parent.duration,
    )
    // And the tensors are found by the caller's trace.
    const requests = await eventually(async () => {
      const answer = await fetch(`${exporter.url}/v1/traces/${traceId}`)
      if (!answer.ok) return undefined
      return ((await answer.json()) as { requests: { request_id: string }[] }).requests
    }, 'the tensors by the caller’s trace')
    expect(requests.map(({ request_id }) => request_id)).toEqual(['chatcmpl-7-0a1b2c3d'])
  })
})
