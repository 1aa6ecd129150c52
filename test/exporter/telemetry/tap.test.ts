import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { JsonTraceSerializer, ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer'
import { type ReadableSpan, TracerProvider } from '@opentelemetry/sdk-trace'
import { describe, expect, test } from 'vitest'
import { collectorLimits } from '../../../collector/limits.ts'
import { SERVICE_NAME } from '../../../exporter/telemetry/resource.ts'
import { contextsOf, faultText } from '../../../exporter/telemetry/tap.ts'
import { readJsonSpans, readProtobufSpans } from '../../../exporter/telemetry/tap-spans.ts'
import { python } from '../../helpers/otlp-receiver.ts'

/** The message of a request given in protobuf's JSON form, made by the official Python classes. */
function encoded(request: object): Uint8Array {
  const script = join(import.meta.dirname, '../../helpers/encode_spans.py')
  const done = spawnSync(python, [script], { input: JSON.stringify({ request }), encoding: 'utf8' })
  if (done.status !== 0) throw new Error(done.stderr)
  return Buffer.from((JSON.parse(done.stdout) as { base64: string }).base64, 'base64')
}

const traceId = '0af7651916cd43dd8448eb211c80319c'
const spanId = 'b7ad6b7169203331'
const base64 = (hexadecimal: string) => Buffer.from(hexadecimal, 'hex').toString('base64')

const requestSpan = {
  traceId,
  spanId,
  traceState: 'vendor=1',
  parentSpanId: '00f067aa0ba902b7',
  name: 'llm_request',
  kind: 2,
  startTimeUnixNano: '1795305600000123456',
  endTimeUnixNano: '1795305601500000999',
  attributes: [
    { key: 'gen_ai.latency.e2e', value: { doubleValue: 1.5 } },
    { key: 'gen_ai.request.id', value: { stringValue: 'chatcmpl-1' } },
    { key: 'gen_ai.usage.prompt_tokens', value: { intValue: '12' } },
  ],
  events: [{ name: 'first_token', timeUnixNano: '1795305600200000000' }],
  status: {},
  flags: 257,
}

const context = {
  requestIds: ['chatcmpl-1'],
  traceId,
  spanId,
  traceState: 'vendor=1',
  startedAtMicros: 1_795_305_600_000_123,
  endedAtMicros: 1_795_305_601_500_000,
}

function requestOf(spans: readonly object[], scope = 'vllm.llm_engine') {
  return {
    resourceSpans: [
      {
        resource: { attributes: [{ key: 'service.name', value: { stringValue: 'vllm' } }] },
        scopeSpans: [{ scope: { name: scope, version: '1' }, spans }],
      },
    ],
  }
}

function ofJson(request: object) {
  return contextsOf(readJsonSpans(Buffer.from(JSON.stringify(request))))
}

describe('an engine span becomes a context', () => {
  test('as the official classes encode it', () => {
    const binary = { ...requestSpan, traceId: base64(traceId), spanId: base64(spanId) }
    const { parentSpanId: _, ...rest } = binary
    const batch = contextsOf(readProtobufSpans(encoded(requestOf([rest]))))
    expect(batch).toEqual({ contexts: [context], faults: {}, rejected: 0 })
  })

  test('as OTLP has it in JSON', () => {
    expect(ofJson(requestOf([requestSpan])).contexts).toEqual([context])
    const upper = { ...requestSpan, traceId: traceId.toUpperCase(), startTimeUnixNano: 1.5e18 }
    expect(ofJson(requestOf([upper])).contexts).toEqual([
      { ...context, startedAtMicros: 1_500_000_000_000_000 },
    ])
  })

  test('as a real SDK sends it, in both encodings alike', () => {
    const ended: ReadableSpan[] = []
    const provider = new TracerProvider({
      spanProcessors: [
        {
          onStart: () => undefined,
          onEnd: (span) => void ended.push(span),
          forceFlush: async () => undefined,
          shutdown: async () => undefined,
        },
      ],
    })
    const span = provider.getTracer('app').startSpan('llm_request')
    span.setAttributes({ 'gen_ai.request.id': 'chatcmpl-7', 'gen_ai.response.id': 'chatcmpl-8' })
    span.end()
    provider.getTracer('app').startSpan('GET /').end()
    const expected = { requestIds: ['chatcmpl-7', 'chatcmpl-8'], ...ids(span.spanContext()) }
    for (const [read, serializer] of [
      [readProtobufSpans, ProtobufTraceSerializer],
      [readJsonSpans, JsonTraceSerializer],
    ] as const) {
      const body = serializer.serializeRequest(ended)
      if (body === undefined) throw new Error('nothing was serialized')
      const { contexts, rejected } = contextsOf(read(body))
      expect(contexts).toMatchObject([expected])
      expect(rejected).toBe(0)
    }
  })
})

function ids(spanContext: { traceId: string; spanId: string }) {
  return { traceId: spanContext.traceId, spanId: spanContext.spanId }
}

test('spans that name no request, and our own, are none of our business', () => {
  const plain = { ...requestSpan, attributes: [] }
  expect(ofJson(requestOf([plain])).contexts).toEqual([])
  const own = {
    ...requestSpan,
    attributes: [{ key: 'ring2.request.id', value: { stringValue: 'r-1' } }],
  }
  expect(ofJson(requestOf([own]))).toMatchObject({ contexts: [{ requestIds: ['r-1'] }] })
  expect(ofJson(requestOf([own], SERVICE_NAME))).toEqual({ contexts: [], faults: {}, rejected: 0 })
})

test("an engine's span comes before the client's that names the same request", () => {
  const client = {
    ...requestSpan,
    spanId: '00f067aa0ba902b7',
    attributes: [{ key: 'gen_ai.response.id', value: { stringValue: 'chatcmpl-1' } }],
  }
  const { contexts } = ofJson(requestOf([client, requestSpan]))
  expect(contexts.map((one) => one.spanId)).toEqual([spanId, client.spanId])
})

test('malformed spans are counted by reason and do not cost the good ones', () => {
  const named = (value: object) => [{ key: 'gen_ai.request.id', value }]
  const long = 'x'.repeat(collectorLimits.attributeCharactersMax + 1)
  const bad: [object, string][] = [
    [{ traceId: 'abcd' }, 'span_trace_id'],
    [{ traceId: '0'.repeat(32) }, 'span_trace_id'],
    [{ traceId: undefined }, 'span_trace_id'],
    [{ traceId: 42 }, 'span_trace_id'],
    [{ spanId: '0'.repeat(16) }, 'span_id'],
    [{ spanId: traceId }, 'span_id'],
    [{ attributes: named({ stringValue: '' }) }, 'span_request_id'],
    [{ attributes: named({ stringValue: long }) }, 'span_request_id'],
    [{ attributes: named({ intValue: '7' }) }, 'span_request_id'],
    [{ attributes: named({}) }, 'span_request_id'],
    [{ startTimeUnixNano: undefined }, 'span_time'],
    [{ endTimeUnixNano: '1' }, 'span_time'],
    [{ endTimeUnixNano: 'soon' }, 'span_time'],
    [{ startTimeUnixNano: -1 }, 'span_time'],
    // The last two texts of 64 bits, and the first time beyond the bound, as a text and a number.
    [
      { startTimeUnixNano: '18446744073709551614', endTimeUnixNano: '18446744073709551615' },
      'span_time',
    ],
    [{ endTimeUnixNano: '18446744073709551615' }, 'span_time'],
    [{ endTimeUnixNano: '9007199254740992000' }, 'span_time'],
    [{ endTimeUnixNano: 9_007_199_254_740_992_000 }, 'span_time'],
  ]
  for (const [change, fault] of bad) {
    const { contexts, faults, rejected } = ofJson(
      requestOf([{ ...requestSpan, ...change }, requestSpan]),
    )
    expect({ change, contexts, faults }).toEqual({
      change,
      contexts: [context],
      faults: { [fault]: 1 },
    })
    expect(rejected).toBe(1)
    expect(faultText(faults)).toMatch(/^expected \S/)
  }
})

test('a trace state that is longer than W3C asks to pass on is left out', () => {
  const state = 'a=1,'.repeat(collectorLimits.traceStateCharactersMax / 4)
  const stateOf = (traceState: string) =>
    ofJson(requestOf([{ ...requestSpan, traceState }])).contexts[0]?.traceState
  expect([stateOf(state), stateOf(`${state}b`), stateOf('')]).toEqual([state, null, null])
})

test('a span may end as late as a number is exact; a time beyond all numbers is a fault', () => {
  const last = { ...requestSpan, endTimeUnixNano: '9007199254740991999' }
  expect(ofJson(requestOf([last])).contexts).toMatchObject([
    { endedAtMicros: Number.MAX_SAFE_INTEGER },
  ])
  const text = JSON.stringify(requestOf([{ ...requestSpan, startTimeUnixNano: 1 }]))
  for (const time of ['1e400', '1e300']) {
    const body = text
      .replace('"startTimeUnixNano":1', `"startTimeUnixNano":${time}`)
      .replace(`"${requestSpan.endTimeUnixNano}"`, time)
    expect(contextsOf(readJsonSpans(Buffer.from(body)))).toEqual({
      contexts: [],
      faults: { span_time: 1 },
      rejected: 1,
    })
  }
  const binary = { ...requestSpan, traceId: base64(traceId), spanId: base64(spanId) }
  const late = { ...binary, endTimeUnixNano: '18446744073709551615' }
  const { parentSpanId: _, ...rest } = late
  expect(contextsOf(readProtobufSpans(encoded(requestOf([rest]))))).toMatchObject({
    contexts: [],
    faults: { span_time: 1 },
  })
})

test('what is no message throws, wherever it is cut, and never loops or reads on', () => {
  const binary = { ...requestSpan, traceId: base64(traceId), spanId: base64(spanId) }
  const { parentSpanId: _, ...rest } = binary
  const message = encoded(requestOf([rest]))
  let refused = 0
  for (let length = 0; length < message.length; length += 1) {
    try {
      contextsOf(readProtobufSpans(message.subarray(0, length)))
    } catch (error) {
      expect(error).toBeInstanceOf(RangeError)
      refused += 1
    }
  }
  expect(refused).toBe(message.length - 1)
  for (const text of ['', '{', '[]', '7', '"x"', '{"resourceSpans":{}}', '{"resourceSpans":[7]}']) {
    expect(() => readJsonSpans(Buffer.from(text)), text).toThrow()
  }
  expect(readJsonSpans(Buffer.from('{}'))).toEqual([])
  expect(readProtobufSpans(new Uint8Array())).toEqual([])
})

test('any bytes are either read or refused', () => {
  const message = Buffer.from(encoded(requestOf([{ name: 'x', attributes: [] }])))
  let state = 7
  const random = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state % below
  }
  for (let round = 0; round < 3000; round += 1) {
    const changed = Buffer.from(message)
    for (let flips = 0; flips < 3; flips += 1) changed[random(changed.length)] = random(256)
    try {
      contextsOf(readProtobufSpans(changed))
    } catch (error) {
      expect(error).toBeInstanceOf(RangeError)
    }
  }
})
