import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  expectDescribed,
  floats,
  get,
  openServer,
  otherModel,
  otherProducer,
  request,
  row,
  summary,
  tensorUrl,
  traceA,
} from './fixture.ts'

/** Elements of an npy answer of float32. */
function npyFloats(payload: Buffer): number[] {
  const start = 10 + payload.readUInt16LE(8)
  return [...new Float32Array(Uint8Array.from(payload.subarray(start)).buffer)]
}

test('a tensor comes as npy by default, stitched over steps, and says what it is', async () => {
  const { app } = await openServer()
  const answer = await get(app, tensorUrl)
  expect(answer.statusCode).toBe(200)
  expect(answer.headers).toMatchObject({
    'content-type': 'application/x-npy',
    'content-disposition': 'attachment; filename="resid_pre.0.npy"',
    'x-content-type-options': 'nosniff',
    'x-ring2-dtype': 'float32',
    'x-ring2-shape': '3,2',
    'x-ring2-tokens': '0:3',
    'x-ring2-completeness': 'complete',
    'x-ring2-request-id': 'request-1',
    'accept-ranges': 'bytes',
  })
  expect(answer.headers).not.toHaveProperty('x-ring2-gaps')
  expect(npyFloats(answer.rawPayload)).toEqual([1, 2, 3, 4, 5, 6])
})

test('tokens, heads and format select what comes', async () => {
  const { app } = await openServer()
  const part = await get(app, `${tensorUrl}?tokens=1:3`)
  expect(npyFloats(part.rawPayload)).toEqual([3, 4, 5, 6])
  const pattern = `/v1/traces/${traceA}/tensors/pattern/0`
  const head = await get(app, `${pattern}?heads=1&format=json`)
  expect(head.headers['content-type']).toBe('application/json; charset=utf-8')
  expect(head.json()).toEqual({
    trace_id: traceA,
    request_id: 'request-1',
    hook: 'pattern',
    layer: 0,
    dtype: 'float32',
    shape: [1, 2, 2],
    tokens: [[0, 2]],
    completeness: 'incomplete',
    gaps: [[2, 3]],
    data: [
      [
        [1, 0],
        [0.25, 0.75],
      ],
    ],
  })
  const safe = await get(app, `${tensorUrl}?format=safetensors`)
  const header = JSON.parse(
    safe.rawPayload.subarray(8, 8 + safe.rawPayload.readUInt32LE(0)).toString(),
  )
  expect(header['resid_pre.0']).toEqual({ dtype: 'F32', shape: [3, 2], data_offsets: [0, 24] })
  expect(header.__metadata__).toMatchObject({ trace_id: traceA, tokens: '[[0,3]]' })
})

test('a global hook is "global" or -1, and its rows are the last positions', async () => {
  const { app } = await openServer()
  for (const layer of ['global', '-1']) {
    const answer = await get(app, `/v1/traces/${traceA}/tensors/final_logits/${layer}`)
    expect(answer.headers['x-ring2-tokens']).toBe('1:2')
    expect(answer.headers['content-disposition']).toContain('"final_logits.npy"')
    expect(npyFloats(answer.rawPayload)).toEqual([7, 8, 9])
  }
})

test('the rows of a trace are listed with shapes, bytes and statistics', async () => {
  const { app } = await openServer()
  const answer = await get(app, `/v1/traces/${traceA}/tensors?hook=resid_pre&layer=0`)
  const list = answer.json()
  await expectDescribed(app, '/v1/traces/{trace_id}/tensors', list)
  expect(list.tensors.map((one: { tokens: number[] }) => one.tokens)).toEqual([
    [0, 2],
    [2, 3],
  ])
  expect(list.tensors[0]).toMatchObject({ shape: [2, 2], data_bytes: 16, step: 0, row: 2 })
  const none = await get(app, `/v1/traces/${traceA}/tensors?hook=ln1`)
  expect(none.json().tensors).toEqual([])
})

test('an unchanged tensor is answered 304 without its bytes', async () => {
  const { app, store } = await openServer()
  const first = await get(app, tensorUrl)
  const tag = String(first.headers.etag)
  const before = store.counts.bytes
  const again = await get(app, tensorUrl, { 'if-none-match': `"other", W/${tag}` })
  expect([again.statusCode, again.rawPayload.length]).toEqual([304, 0])
  expect(again.headers.etag).toBe(tag)
  expect(store.counts.bytes - before).toBeLessThan(first.rawPayload.length + 8192)
  expect((await get(app, `${tensorUrl}?format=json`)).headers.etag).not.toBe(tag)
  expect((await get(app, tensorUrl, { 'if-none-match': '"x"' })).statusCode).toBe(200)
  expect((await get(app, tensorUrl, { 'if-none-match': '*' })).statusCode).toBe(304)
})

test('a range of bytes is answered 206, one beyond the end 416, nonsense whole', async () => {
  const { app } = await openServer()
  const whole = await get(app, tensorUrl)
  const size = whole.rawPayload.length
  const range = (value: string, rest = {}) => get(app, tensorUrl, { range: value, ...rest })
  const first = await range('bytes=0-9')
  expect(first.statusCode).toBe(206)
  expect(first.headers['content-range']).toBe(`bytes 0-9/${size}`)
  expect(first.rawPayload).toEqual(whole.rawPayload.subarray(0, 10))
  const last = await range('bytes=-8')
  expect(last.rawPayload).toEqual(whole.rawPayload.subarray(size - 8))
  expect((await range(`bytes=${size - 1}-`)).rawPayload.length).toBe(1)
  const beyond = await range(`bytes=${size}-`)
  expect([beyond.statusCode, beyond.headers['content-range']]).toEqual([416, `bytes */${size}`])
  expect((await range('bytes=-0')).statusCode).toBe(416)
  for (const value of ['bytes=5-2', 'bytes=-', 'lines=0-1', 'bytes=0-1,4-5']) {
    expect((await range(value)).statusCode).toBe(200)
  }
  const tag = String(whole.headers.etag)
  expect((await range('bytes=0-9', { 'if-range': tag })).statusCode).toBe(206)
  expect((await range('bytes=0-9', { 'if-range': '"old"' })).statusCode).toBe(200)
})

test('HEAD tells of the whole answer, whatever range is asked of it', async () => {
  const { app } = await openServer()
  const whole = await get(app, tensorUrl)
  for (const range of ['bytes=0-9', 'bytes=999999-']) {
    const head = await app.inject({ method: 'HEAD', url: tensorUrl, headers: { range } })
    expect(head.statusCode).toBe(200)
    expect(head.headers['content-length']).toBe(String(whole.rawPayload.length))
  }
})

test('a tensor with gaps says so, and require=complete turns it into 409', async () => {
  const { app, store } = await openServer()
  const hole = request({ traceId: 'd'.repeat(32) })
  store.flush([
    row({ request: hole, shape: [1, 2], data: floats(1, 2) }),
    row({ request: hole, shape: [1, 2], data: floats(3, 4), tokenStart: 4, tokenEnd: 5, step: 4 }),
  ])
  const url = `/v1/traces/${'d'.repeat(32)}/tensors/resid_pre/0`
  const answer = await get(app, url)
  expect(answer.statusCode).toBe(200)
  expect(answer.headers).toMatchObject({
    'x-ring2-completeness': 'incomplete',
    'x-ring2-gaps': '1:4',
    'x-ring2-tokens': '0:1,4:5',
  })
  const refused = await get(app, `${url}?require=complete`)
  expect([refused.statusCode, refused.json().code]).toEqual([409, 'RING2_E_INCOMPLETE'])
  expect(refused.json().actual).toContain('1:4')
  expect(refused.headers).not.toHaveProperty('x-ring2-shape')
  // Not ended and without a hole: nobody knows, and that is not complete.
  const part = await get(app, `${url}?tokens=0:1&require=complete`)
  expect(part.json()).toMatchObject({ code: 'RING2_E_INCOMPLETE', actual: /not ended/ })
  const fine = await get(app, `${tensorUrl}?require=complete`)
  expect(fine.statusCode).toBe(200)
})

test('several requests of a trace are asked for by id, whatever characters it has', async () => {
  const { app, store } = await openServer()
  const id = 'ids/with ?&*\n 漢字'
  store.flush([row({ request: request({ requestId: id }), shape: [1, 2], data: floats(8, 9) })])
  const ambiguous = await get(app, tensorUrl)
  expect(ambiguous.json()).toMatchObject({ status: 400, code: 'RING2_E_QUERY' })
  expect(ambiguous.json().expected).toContain('request-1')
  const one = await get(app, `${tensorUrl}?request_id=${encodeURIComponent(id)}`)
  expect(npyFloats(one.rawPayload)).toEqual([8, 9])
  expect(decodeURIComponent(String(one.headers['x-ring2-request-id']))).toBe(id)
  const nobody = await get(app, `${tensorUrl}?request_id=..%2F..%2Fetc%2Fpasswd`)
  expect([nobody.statusCode, nobody.json().code]).toEqual([404, 'RING2_E_TENSOR_UNKNOWN'])
})

test('the longest request id can be asked for', async () => {
  const { app, store } = await openServer()
  const id = 'i'.repeat(1024)
  store.flush([row({ request: request({ requestId: id }), shape: [1, 2], data: floats(8, 9) })])
  const one = await get(app, `${tensorUrl}?request_id=${id}`)
  expect(npyFloats(one.rawPayload)).toEqual([8, 9])
})

test('two models under one request are both listed, and a producer chooses one', async () => {
  const { app, store } = await openServer()
  const other = { model: otherModel, producer: otherProducer }
  const values = { tokenEnd: 2, shape: [2, 2], data: floats(9, 8, 7, 6) }
  store.flush([row({ ...other, ...values })], [summary(other)], otherProducer)
  const [chat, draft] = ['chat-00c0ffee00c0ffee', 'draft-00c0ffee00c0ffee']
  const rows = `/v1/traces/${traceA}/tensors?hook=resid_pre&layer=0`
  const listed = (await get(app, rows)).json()
  await expectDescribed(app, '/v1/traces/{trace_id}/tensors', listed)
  const producers = (list: { tensors: { producer: string }[] }) =>
    list.tensors.map((one) => one.producer)
  expect(producers(listed)).toEqual([chat, chat, draft])
  expect(producers((await get(app, `${rows}&producer=${draft}`)).json())).toEqual([draft])
  const ambiguous = (await get(app, tensorUrl)).json()
  expect(ambiguous).toMatchObject({ status: 400, code: 'RING2_E_QUERY' })
  expect(ambiguous.expected).toContain(`${draft} (model draft/model)`)
  const first = await get(app, `${tensorUrl}?producer=${chat}&require=complete`)
  expect(npyFloats(first.rawPayload)).toEqual([1, 2, 3, 4, 5, 6])
  const second = await get(app, `${tensorUrl}?producer=${draft}`)
  expect(npyFloats(second.rawPayload)).toEqual([9, 8, 7, 6])
  expect(second.headers['x-ring2-gaps']).toBe('2:3')
  const nobody = await get(app, `${tensorUrl}?producer=nobody`)
  expect([nobody.statusCode, nobody.json().code]).toEqual([404, 'RING2_E_TENSOR_UNKNOWN'])
})

test('what is wrong with a question is named with its code', async () => {
  const { app } = await openServer()
  const base = `/v1/traces/${traceA}/tensors`
  for (const [url, status, code] of [
    [`${base}/ln1/0`, 404, 'RING2_E_TENSOR_UNKNOWN'],
    [`${base}/resid_pre/9`, 404, 'RING2_E_TENSOR_UNKNOWN'],
    [`${base}/..%2Fx/0`, 400, 'RING2_E_QUERY'],
    [`${base}/resid*/0`, 400, 'RING2_E_QUERY'],
    [`${base}/resid_pre/first`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?tokens=3:1`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?tokens=50:60`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?heads=0`, 400, 'RING2_E_QUERY'],
    [`${base}/pattern/0?heads=2`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?rank=3`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?rank=left`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?format=feather`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?require=everything`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?head=0`, 400, 'RING2_E_QUERY'],
    [`${tensorUrl}?request_id=${'x'.repeat(1100)}`, 400, 'RING2_E_QUERY'],
  ] as const) {
    const answer = await get(app, url)
    expect([url, answer.statusCode, answer.json().code]).toEqual([url, status, code])
  }
})

test.each([
  ['format=feather', 'format=npy, safetensors, arrow, json', '"feather"'],
  ['format=npy&format=json', 'format once', '2 times'],
  ['require=everything', 'require=complete', '"everything"'],
  [
    'head=0',
    'no parameters but request_id, producer, tokens, heads, rank, format, require',
    '"head"',
  ],
  ['request_id=x{1100}', 'request_id of at most 1024 characters', '1100 characters'],
  ['tokens=0:1&tokens=1:2', 'tokens once', '2 times'],
])('with %s it says what was expected and what came', async (query, expected, actual) => {
  const { app } = await openServer()
  const asked = query.replace('x{1100}', 'x'.repeat(1100))
  const answer = await get(app, `${tensorUrl}?${asked}`)
  expect(answer.statusCode).toBe(400)
  expect(answer.json()).toMatchObject({ code: 'RING2_E_QUERY', expected, actual })
})

test('an answer beyond the bound is 413 with what to ask for instead', async () => {
  const { store } = await openServer()
  const { app } = await openServer({
    catalog: store.catalog,
    reader: store.reader({ tensorBytesMax: 23 }),
  })
  const answer = await get(app, tensorUrl)
  expect([answer.statusCode, answer.json().code]).toEqual([413, 'RING2_E_TOO_LARGE'])
  expect(answer.json().action).toContain('tokens=a:b')
})

test('an object that is gone from the store is 503 and names it', async () => {
  const { app, root } = await openServer()
  rmSync(join(root, 'tensors'), { recursive: true })
  const answer = await get(app, tensorUrl)
  expect([answer.statusCode, answer.json().code]).toEqual([503, 'RING2_E_STORE'])
  expect(answer.json().expected).toContain('tensors/model_slug=')
})
