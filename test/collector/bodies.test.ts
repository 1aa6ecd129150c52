import { describe, expect, test } from 'vitest'
import {
  parseModel,
  parseRequest,
  parseRequestEnd,
  readGap,
  readStep,
} from '../../collector/bodies.ts'
import { deriveTraceId } from '../../collector/ids.ts'
import { collectorLimits } from '../../collector/limits.ts'
import { stepBody, tinyModel } from '../helpers/producer.ts'

const atMicros = 1_772_600_767_123_456
const traceId = '0af7651916cd43dd8448eb211c80319c'
const parentSpanId = 'b7ad6b7169203331'

const body = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

describe('whatever the record, its body', () => {
  const readers = {
    MODEL: parseModel,
    REQUEST: (bytes: Uint8Array) => parseRequest(bytes, atMicros),
    REQUEST_END: parseRequestEnd,
  }
  const malformed: [string, Uint8Array, string][] = [
    ['nothing', new Uint8Array(0), 'no JSON in UTF-8'],
    ['half a document', Buffer.from('{"name": "ti'), 'no JSON in UTF-8'],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), 'no JSON in UTF-8'],
    ['a list', body([1, 2]), 'no JSON object'],
    ['null', body(null), 'no JSON object'],
    ['a number', body(7), 'no JSON object'],
    ['brackets 30 000 deep', Buffer.from('['.repeat(30_000)), 'no JSON in UTF-8'],
  ]
  for (const [record, read] of Object.entries(readers)) {
    test.each(malformed)(`of a ${record} that is %s is refused in words`, (_, bytes, reason) => {
      expect(read(bytes)).toEqual({ ok: false, reason })
    })
  }
})

describe('a MODEL body', () => {
  test('becomes a model, with the names of TypeScript', () => {
    expect(parseModel(body(tinyModel))).toEqual({
      ok: true,
      value: {
        name: 'tiny',
        revision: 'r1',
        engine: 'test',
        dtype: 'float32',
        layers: 2,
        heads: 2,
        kvHeads: 1,
        hidden: 4,
        vocabulary: 8,
        hooks: { resid_pre: [0, 1] },
      },
    })
  })

  test('may leave out everything but the name', () => {
    expect(parseModel(body({ name: 'bare' }))).toMatchObject({
      ok: true,
      value: { name: 'bare', engine: 'unknown', layers: 0, hooks: {} },
    })
  })

  test.each([[{}], [{ name: '' }], [{ name: 7 }]])('without a name is refused: %j', (facts) => {
    expect(parseModel(body(facts))).toEqual({ ok: false, reason: 'MODEL without a name' })
  })

  test.each([
    [{ pattern: 'all' }, 'pattern'],
    [{ pattern: null }, 'pattern'],
    ['text', '0'],
  ])('whose hooks are %j is refused', (hooks, named) => {
    expect(parseModel(body({ name: 'm', hooks }))).toEqual({
      ok: false,
      reason: `MODEL hook ${named} without a list of layers`,
    })
  })

  test('keeps only whole numbers as layers, and no negative counts', () => {
    const facts = { name: 'm', layers: -3, heads: 1.5, hooks: { q: [0, 'one', 1.5, null, 2] } }
    expect(parseModel(body(facts))).toMatchObject({
      value: { layers: 0, heads: 0, hooks: { q: [0, 2] } },
    })
  })

  test.each([
    [2, { shards: 2 }],
    [1, {}],
    [1.5, {}],
    ['2', {}],
    [collectorLimits.ranksMax + 1, {}],
  ])('with %j shards holds those of a parallel model: %j', (shards, expected) => {
    const parsed = parseModel(body({ name: 'm', shards }))
    const model = parsed.ok ? parsed.value : {}
    expect('shards' in model ? { shards: model.shards } : {}).toEqual(expected)
  })

  test('is cut where a text is longer than the bound', () => {
    const parsed = parseModel(body({ name: 'n'.repeat(60_000) }))
    expect(parsed.ok && parsed.value.name).toHaveLength(collectorLimits.attributeCharactersMax)
  })
})

describe('a REQUEST body', () => {
  const read = (facts: unknown) => parseRequest(body(facts), atMicros)

  test('with a traceparent gives the caller’s trace, a span of its own and the rest as it came', () => {
    const parsed = read({
      key: 7,
      request_id: 'request-7',
      traceparent: `00-${traceId}-${parentSpanId}-01`,
      tracestate: 'vendor=1',
      attributes: { route: '/chat', beams: 1, stream: true },
      started_realtime_ns: `${atMicros - 5}789`,
    })
    expect(parsed).toEqual({
      ok: true,
      value: {
        key: 7,
        requestId: 'request-7',
        traceId,
        spanId: expect.stringMatching(/^[0-9a-f]{16}$/),
        parentSpanId,
        traceFlags: 1,
        traceOrigin: 'request',
        traceState: 'vendor=1',
        attributes: { route: '/chat', beams: 1, stream: true },
        startedAtMicros: atMicros - 5,
      },
    })
  })

  test('without one takes the trace from a request id of that form', () => {
    expect(read({ key: 1, request_id: `${traceId}-${parentSpanId}` })).toMatchObject({
      value: { traceId, parentSpanId, traceOrigin: 'request_id' },
    })
  })

  test.each([
    ['none', undefined],
    ['a broken one', '00-xyz'],
    ['one of zeros', `00-${'0'.repeat(32)}-${parentSpanId}-01`],
    ['a number', 12],
  ])('with %s as traceparent derives the trace from the request id', (_, traceparent) => {
    expect(read({ key: 1, request_id: 'plain', traceparent })).toMatchObject({
      value: { traceId: deriveTraceId('plain'), parentSpanId: null, traceOrigin: 'derived' },
    })
  })

  test.each([[undefined], [0], [-1], [1.5], ['1'], [2 ** 53]])(
    'with the key %j is refused',
    (key) => {
      expect(read({ key, request_id: 'r' })).toEqual({ ok: false, reason: 'REQUEST without a key' })
    },
  )

  test.each([[undefined], [''], [7]])('with the request id %j is refused', (requestId) => {
    expect(read({ key: 1, request_id: requestId })).toEqual({
      ok: false,
      reason: 'REQUEST without a request_id',
    })
  })

  test.each([['0'], ['-5'], ['soon'], [1e300], ['1e400'], [null], ['99999999999999999999999']])(
    'that began at %j began when its record was written',
    (started) => {
      const parsed = read({ key: 1, request_id: 'r', started_realtime_ns: started })
      expect(parsed).toMatchObject({ value: { startedAtMicros: atMicros } })
    },
  )

  test('keeps at most the bound of attributes, cuts long ones, and drops what is no attribute', () => {
    const many = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`a${index}`, index]))
    const bounded = read({ key: 1, request_id: 'r', attributes: many })
    expect(bounded.ok && Object.keys(bounded.value.attributes)).toHaveLength(
      collectorLimits.requestAttributesMax,
    )
    const odd = { long: 'x'.repeat(5000), list: [1], none: null, nested: {} }
    const cut = read({ key: 1, request_id: 'r', attributes: odd })
    expect(cut.ok && cut.value.attributes).toEqual({
      long: 'x'.repeat(collectorLimits.attributeCharactersMax),
    })
    expect(read({ key: 1, request_id: 'r', attributes: 'none' })).toMatchObject({
      value: { attributes: {} },
    })
  })
})

describe('a REQUEST_END body', () => {
  test('tells what the producer processed', () => {
    const facts = { key: 3, steps: 4, tokens: 20, prompt_tokens: 17, outcome: 'ok' }
    expect(parseRequestEnd(body(facts))).toEqual({
      ok: true,
      value: { key: 3, steps: 4, tokens: 20, promptTokens: 17, stepsLeftOut: 0, outcome: 'ok' },
    })
  })

  test('says null for what it does not tell, and for nonsense', () => {
    expect(parseRequestEnd(body({ key: 3, steps: -1, tokens: 'many' }))).toEqual({
      ok: true,
      value: {
        key: 3,
        steps: null,
        tokens: null,
        promptTokens: null,
        stepsLeftOut: 0,
        outcome: 'unknown',
      },
    })
  })

  test('without a key is refused', () => {
    expect(parseRequestEnd(body({ steps: 1 }))).toEqual({
      ok: false,
      reason: 'REQUEST_END without a key',
    })
  })
})

test('the rows of a STEP body say whose tokens they are', () => {
  const { header, rows } = stepBody({
    step: 9,
    columns: 5,
    rows: [
      { key: 1, start: 0, end: 5 },
      { key: 2n ** 60n, start: 7, end: 8, phase: 'decode' },
    ],
  })
  expect(readStep(Buffer.concat([header, rows])).rows).toEqual([
    { requestKey: 1, tokenStart: 0, tokenEnd: 5, phase: 'prefill' },
    { requestKey: Number.MAX_SAFE_INTEGER, tokenStart: 7, tokenEnd: 8, phase: 'decode' },
  ])
})

test('a GAP body gives the losses that occurred, by reason', () => {
  const gap = Buffer.alloc(272)
  gap.writeBigUInt64LE(3n, 16)
  gap.writeBigUInt64LE(300n, 24)
  gap.writeBigUInt64LE(1n, 7 * 16)
  expect(readGap(gap)).toEqual([
    { reason: 'payload_full', records: 3, bytes: 300 },
    { reason: 'reason_7', records: 1, bytes: 0 },
  ])
})
