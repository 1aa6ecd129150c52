import { expect, test } from 'vitest'
import { noonMicros } from '../tensors/rows.ts'
import { expectDescribed, get, openServer, request, row, summary, traceA } from './fixture.ts'

test('the list has one entry per request, with times, tokens, verdict and bytes', async () => {
  const { app } = await openServer()
  const answer = await get(app, '/v1/traces')
  expect(answer.statusCode).toBe(200)
  expect(answer.json()).toEqual({
    traces: [
      {
        trace_id: traceA,
        caller_trace_id: null,
        request_id: 'request-1',
        span_id: '1111111111111111',
        model: 'HuggingFaceTB/SmolLM2-135M-Instruct',
        model_revision: 'main',
        engine: 'transformers',
        producer: 'chat-00c0ffee00c0ffee',
        host: 'host-1',
        started_at: '2026-03-04T05:06:07.123456Z',
        ended_at: '2026-03-04T05:06:08.123456Z',
        tokens: 3,
        prompt_tokens: 2,
        steps: 2,
        verdict: 'ok',
        completeness: 'complete',
        tensors_stored: 4,
        bytes_stored: 16 + 8 + 32 + 12,
      },
    ],
    next_cursor: null,
  })
  await expectDescribed(app, '/v1/traces', answer.json())
})

test('the list is filtered and paged', async () => {
  const now = Math.floor(noonMicros / 1000) + 3_600_000
  const { app, store } = await openServer({ now: () => now })
  const other = request({
    traceId: 'd'.repeat(32),
    requestId: 'late',
    startedAtMicros: noonMicros + 3_000_000_000,
  })
  store.flush([], [summary({ request: other, verdict: 'nonfinite' })])
  const ids = async (url: string) =>
    (await get(app, url)).json().traces.map((one: { request_id: string }) => one.request_id)
  expect(await ids('/v1/traces')).toEqual(['late', 'request-1'])
  expect(await ids('/v1/traces?since=30m')).toEqual(['late'])
  expect(await ids('/v1/traces?verdict=ok')).toEqual(['request-1'])
  expect(await ids('/v1/traces?model=nobody')).toEqual([])
  const first = (await get(app, '/v1/traces?limit=1')).json()
  expect(first.traces).toHaveLength(1)
  const next = await ids(`/v1/traces?limit=1&cursor=${encodeURIComponent(first.next_cursor)}`)
  expect(next).toEqual(['request-1'])
})

test('a trace shows its tensors, phases, statistics and completeness', async () => {
  const { app } = await openServer()
  const answer = await get(app, `/v1/traces/${traceA}`)
  expect(answer.statusCode).toBe(200)
  const trace = answer.json()
  await expectDescribed(app, '/v1/traces/{trace_id}', trace)
  const [only] = trace.requests
  expect(only.tensors).toEqual([
    tensor('final_logits', -1, [0, 2], 1, 12),
    tensor('pattern', 0, [0, 2], 1, 32),
    tensor('resid_pre', 0, [0, 3], 2, 24),
  ])
  expect(only.details).toMatchObject({
    attributes: { route: '/chat', empty: '' },
    completeness: { state: 'complete', expected: 10, seen: 10, reasons: [] },
    nonfinite: { nan: 0, pos_inf: 0, neg_inf: 0 },
    statistics: {
      layers: { 'resid_pre.l2_mean': [1.5, null] },
      globals: { 'final_logits.entropy_mean': 2.25 },
    },
  })
  expect(only.details.phases[0]).toEqual({
    phase: 'prefill',
    started_at: '2026-03-04T05:06:07.123456Z',
    ended_at: '2026-03-04T05:06:07.623456Z',
    tokens: [0, 2],
    steps: 1,
  })
})

function tensor(hook: string, layer: number, tokens: number[], rows: number, bytes: number) {
  const ranks = { tp_rank: 0, pp_rank: 0, dp_rank: 0, ep_rank: 0 }
  const [token_start, token_end] = tokens
  return { hook, layer, ...ranks, dtype: 'float32', token_start, token_end, rows, bytes }
}

test('a request that has not ended is shown as unknown and without details', async () => {
  const { app, store } = await openServer()
  const open = request({ traceId: 'e'.repeat(32) })
  store.flush([row({ request: open })])
  const trace = (await get(app, `/v1/traces/${'e'.repeat(32)}`)).json()
  expect(trace.requests[0]).toMatchObject({
    ended_at: null,
    tokens: null,
    verdict: 'unknown',
    completeness: 'unknown',
    details: null,
  })
  await expectDescribed(app, '/v1/traces/{trace_id}', trace)
})

test('trace ids with path, glob or other characters are refused by name', async () => {
  const { app } = await openServer()
  const bad = [
    '..%2F..%2Fetc%2Fpasswd',
    '*',
    `${traceA}*`,
    `${traceA.slice(0, 31).toUpperCase()}G`,
    '0'.repeat(32),
    '%00',
    "'; DROP TABLE requests; --",
    'x'.repeat(400),
  ]
  for (const id of bad) {
    for (const rest of ['', '/tensors', '/tensors/resid_pre/0']) {
      const answer = await get(app, `/v1/traces/${id}${rest}`)
      expect([id, answer.statusCode, answer.json().code]).toEqual([id, 400, 'RING2_E_TRACE_ID'])
    }
  }
})

test('a trace id is taken in upper case too, in a path and in a search', async () => {
  const { app } = await openServer()
  const trace = (await get(app, `/v1/traces/${traceA}`)).json()
  expect((await get(app, `/v1/traces/${traceA.toUpperCase()}`)).json()).toEqual(trace)
  const found = (await get(app, `/v1/traces?q=${traceA.slice(0, 9).toUpperCase()}`)).json()
  expect(found.traces).toMatchObject([{ trace_id: traceA }])
})

test('unknown traces are 404 and wrong parameters are 400, each with its code', async () => {
  const { app } = await openServer()
  const unknown = 'f'.repeat(32)
  for (const [url, status, code] of [
    [`/v1/traces/${unknown}`, 404, 'RING2_E_TRACE_UNKNOWN'],
    [`/v1/traces/${unknown}/tensors`, 404, 'RING2_E_TRACE_UNKNOWN'],
    [`/v1/traces/${unknown}/tensors/resid_pre/0`, 404, 'RING2_E_TRACE_UNKNOWN'],
    ['/v1/traces?limit=0', 400, 'RING2_E_QUERY'],
    ['/v1/traces?limit=501', 400, 'RING2_E_QUERY'],
    ['/v1/traces?since=yesterday', 400, 'RING2_E_QUERY'],
    ['/v1/traces?verdict=fine', 400, 'RING2_E_QUERY'],
    ['/v1/traces?cursor=nonsense', 400, 'RING2_E_QUERY'],
    ['/v1/traces?modle=x', 400, 'RING2_E_QUERY'],
    ['/v1/traces?limit=1&limit=2', 400, 'RING2_E_QUERY'],
    ['/v1/nothing', 404, 'RING2_E_NOT_FOUND'],
  ] as const) {
    const answer = await get(app, url)
    expect([url, answer.statusCode, answer.json().code]).toEqual([url, status, code])
  }
  const posted = await app.inject({ method: 'POST', url: '/v1/traces', payload: {} })
  expect([posted.statusCode, posted.json().code]).toEqual([404, 'RING2_E_NOT_FOUND'])
})
