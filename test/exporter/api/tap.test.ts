import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { httpLimits } from '../../../exporter/limits.ts'
import type { ContextBatch } from '../../../exporter/pipeline/messages.ts'
import { createProtobufWriter } from '../../../exporter/telemetry/protobuf.ts'
import { python } from '../../helpers/otlp-receiver.ts'
import { openServer } from './fixture.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
const json = { 'content-type': 'application/json' }
const protobuf = { 'content-type': 'application/x-protobuf' }
const url = '/otlp/v1/traces'

function span(changes: object = {}) {
  return {
    traceId,
    spanId: 'b7ad6b7169203331',
    startTimeUnixNano: '1795305600000123456',
    endTimeUnixNano: '1795305601500000999',
    attributes: [{ key: 'gen_ai.request.id', value: { stringValue: 'r-1' } }],
    ...changes,
  }
}

const body = (...spans: object[]) =>
  JSON.stringify({ resourceSpans: [{ scopeSpans: [{ scope: { name: 'vllm' }, spans }] }] })

/** The same span as a message, with a trace id of these digits. */
function message(id: string): Buffer {
  const writer = createProtobufWriter()
  const open = [writer.open(1), writer.open(2), writer.open(2)]
  writer.hex(1, id)
  writer.hex(2, 'b7ad6b7169203331')
  writer.fixed64(7, 1_795_305_600_000_123, 1000)
  writer.fixed64(8, 1_795_305_601_500_000, 1000)
  const attribute = writer.open(9)
  writer.text(1, 'gen_ai.request.id')
  const value = writer.open(2)
  writer.text(1, 'r-1')
  writer.close(value)
  writer.close(attribute)
  for (const start of open.reverse()) writer.close(start)
  return writer.finish()
}

/** What the official classes read in an answer. */
function decoded(kind: 'response' | 'status', payload: Buffer): unknown {
  const script = join(import.meta.dirname, '../../helpers/encode_spans.py')
  const input = JSON.stringify({ kind, base64: payload.toString('base64') })
  const done = spawnSync(python, [script], { input, encoding: 'utf8' })
  if (done.status !== 0) throw new Error(done.stderr)
  return JSON.parse(done.stdout)
}

async function tap(options: { token?: string; ready?: boolean } = {}) {
  const batches: ContextBatch[] = []
  const { app } = await openServer({
    token: options.token ?? null,
    tap: (batch) => {
      batches.push(batch)
      return options.ready ?? true
    },
  })
  onTestFinished(() => app.close())
  const post = (payload: string | Buffer, headers: Record<string, string>) =>
    app.inject({ method: 'POST', url, payload, headers })
  return { app, post, batches }
}

test('spans are taken as JSON and as Protocol Buffers, plain and packed', async () => {
  const { post, batches } = await tap()
  const packed = { 'content-encoding': 'gzip' }
  for (const [payload, headers] of [
    [body(span()), json],
    [gzipSync(body(span())), { ...json, ...packed }],
    [message(traceId), protobuf],
    [gzipSync(message(traceId)), { ...protobuf, ...packed }],
  ] as const) {
    const answer = await post(payload, headers)
    expect(answer.statusCode).toBe(200)
    expect(answer.headers['content-type']).toContain(headers['content-type'])
    expect(answer.body).toBe(headers['content-type'] === 'application/json' ? '{}' : '')
  }
  expect(batches).toHaveLength(4)
  for (const { contexts, faults } of batches) {
    expect(contexts).toMatchObject([
      { requestIds: ['r-1'], traceId, startedAtMicros: 1_795_305_600_000_123 },
    ])
    expect(faults).toEqual({})
  }
})

test('spans without a request id are taken and passed over', async () => {
  const { post, batches } = await tap()
  const answer = await post(body(span({ attributes: [] })), json)
  expect(answer.json()).toEqual({})
  expect(batches).toEqual([])
})

test('malformed spans are a partial success: counted, told, and the others are taken', async () => {
  const { post, batches } = await tap()
  const zero = span({ traceId: '0'.repeat(32) })
  const answer = await post(body(zero, span()), json)
  expect(answer.statusCode).toBe(200)
  const errorMessage = expect.stringContaining('trace_id')
  expect(answer.json()).toEqual({ partialSuccess: { rejectedSpans: '1', errorMessage } })
  expect(batches).toMatchObject([{ contexts: [{ traceId }], faults: { span_trace_id: 1 } }])
  const second = await post(message('00'.repeat(16)), protobuf)
  expect(second.statusCode).toBe(200)
  expect(decoded('response', second.rawPayload)).toEqual({
    partialSuccess: { rejectedSpans: '1', errorMessage },
  })
})

test('what cannot be decoded is refused for good, with a status in its own encoding', async () => {
  const { post, batches } = await tap()
  const expected = { code: 3, message: expect.stringContaining('ExportTraceServiceRequest') }
  const text = await post('{"resourceSpans": 7}', json)
  expect(text.statusCode).toBe(400)
  expect(text.json()).toEqual(expected)
  const bytes = await post(Buffer.from([0x0a, 0xff, 0x01]), protobuf)
  expect(bytes.statusCode).toBe(400)
  expect(bytes.headers['content-type']).toContain('application/x-protobuf')
  expect(decoded('status', bytes.rawPayload)).toEqual(expected)
  const garbled = await post(Buffer.from('no gzip'), { ...protobuf, 'content-encoding': 'gzip' })
  expect(garbled.statusCode).toBe(400)
  expect(batches).toEqual([
    { contexts: [], faults: { spans_undecodable: 1 } },
    { contexts: [], faults: { spans_undecodable: 1 } },
  ])
})

test('other encodings and types are refused', async () => {
  const { post } = await tap()
  expect((await post(body(span()), { ...json, 'content-encoding': 'zstd' })).statusCode).toBe(415)
  const plain = await post(body(span()), { 'content-type': 'text/plain' })
  expect(plain.statusCode).toBe(415)
  expect(plain.json()).toMatchObject({
    code: 'RING2_E_QUERY',
    expected: 'application/x-protobuf or application/json as Content-Type',
    actual: 'text/plain',
  })
})

test('a body over the bound is refused, also one that only unpacks to that', async () => {
  const { post, batches } = await tap()
  const large = Buffer.alloc(httpLimits.tapBodyBytesMax + 1)
  expect((await post(large, protobuf)).statusCode).toBe(413)
  const packed = gzipSync(large)
  expect(packed.length).toBeLessThan(100_000)
  const answer = await post(packed, { ...protobuf, 'content-encoding': 'gzip' })
  expect(answer.statusCode).toBe(413)
  expect(decoded('status', answer.rawPayload)).toMatchObject({ code: 11 })
  expect(batches).toEqual([])
})

test('the token guards it, and a wrong one is answered as the protocol asks', async () => {
  const { post, batches } = await tap({ token: 'secret' })
  const refused = await post(body(span()), json)
  expect(refused.statusCode).toBe(401)
  expect(refused.headers['www-authenticate']).toBe('Bearer')
  expect(refused.json()).toMatchObject({ code: 16 })
  const taken = await post(body(span()), { ...json, authorization: 'Bearer secret' })
  expect(taken.statusCode).toBe(200)
  expect(batches).toHaveLength(1)
})

test('while nothing drains, the sender is asked to come again', async () => {
  const { post } = await tap({ ready: false })
  const answer = await post(message(traceId), protobuf)
  expect(answer.statusCode).toBe(503)
  expect(answer.headers['retry-after']).toBe('1')
  expect(decoded('status', answer.rawPayload)).toMatchObject({ code: 14 })
})

test('says that it is off, and how to switch it on; other routes keep their errors', async () => {
  const { app } = await openServer({ token: null })
  onTestFinished(() => app.close())
  const text = 'the tap is off; telemetry.tap: true switches it on'
  const answer = await app.inject({ method: 'POST', url, headers: json, payload: body(span()) })
  expect([answer.statusCode, answer.json()]).toEqual([404, { code: 5, message: text }])
  const packed = { ...protobuf, 'content-encoding': 'gzip' }
  const payload = gzipSync(message(traceId))
  const binary = await app.inject({ method: 'POST', url, headers: packed, payload })
  expect([binary.statusCode, binary.headers['content-type']]).toEqual([
    404,
    protobuf['content-type'],
  ])
  expect(decoded('status', binary.rawPayload)).toMatchObject({ code: 5, message: text })
  const other = await app.inject({ method: 'POST', url: '/nope', payload: '{}', headers: json })
  expect(other.statusCode).toBe(404)
  expect(other.headers['content-type']).toContain('application/problem+json')
})
