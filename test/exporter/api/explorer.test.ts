import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { model, noonMicros, producer } from '../tensors/rows.ts'
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
  traceA,
} from './fixture.ts'

const base = `/v1/traces/${traceA}`
const info = request({ requestId: 'views' })
const scope = 'request_id=views'

function ids(...values: number[]): Uint8Array {
  return new Uint8Array(BigInt64Array.from(values, BigInt).buffer)
}

function stored(change: Partial<TensorRow>): TensorRow {
  return row({ request: info, ...change })
}

function decodeLogits(position: number, step: number, ...logits: number[]): TensorRow {
  return stored({
    hook: 'final_logits',
    layer: -1,
    phase: 'decode',
    step,
    tokenStart: position,
    tokenEnd: position + 1,
    shape: [1, logits.length],
    data: floats(...logits),
    statistics: { entropyMean: 0.123456789, top1ProbabilityMean: 0.9, marginMean: 4.5 },
  })
}

/** As a drain stores a row of a redacted hook. */
const withoutPayload = { encoding: 'redacted', crc32c: 0, data: new Uint8Array(0) }

/** A prompt of 3 tokens with logits of its last two, and two decode steps. */
const rows: readonly TensorRow[] = [
  stored({
    hook: 'token_ids',
    layer: -1,
    dtype: 'int64',
    tokenEnd: 3,
    shape: [3],
    data: ids(5, 2, 1),
  }),
  stored({
    hook: 'final_logits',
    layer: -1,
    tokenEnd: 3,
    shape: [2, 3],
    data: floats(0, 0, 0, 1, 2, 3),
    statistics: { entropyMean: 9, top1ProbabilityMean: 9, marginMean: 9, surprisalMean: 9 },
  }),
  stored({
    hook: 'token_ids',
    layer: -1,
    dtype: 'int64',
    phase: 'decode',
    step: 1,
    tokenStart: 3,
    tokenEnd: 4,
    shape: [1],
    data: ids(2),
  }),
  decodeLogits(3, 1, 0, 0, Math.log(2)),
  stored({
    hook: 'token_ids',
    layer: -1,
    dtype: 'int64',
    phase: 'decode',
    step: 2,
    tokenStart: 4,
    tokenEnd: 5,
    shape: [1],
    data: ids(0),
    statistics: { surprisalMean: 0.75 },
  }),
  decodeLogits(4, 2, 3, 1, 1),
]

const ended = summary({
  request: info,
  tokens: 5,
  promptTokens: 3,
  phases: [
    {
      phase: 'prefill',
      startedAtMicros: 1,
      endedAtMicros: 2,
      tokenStart: 0,
      tokenEnd: 3,
      steps: 1,
    },
  ],
})

async function openViews(extra: readonly TensorRow[] = rows) {
  const opened = await openServer()
  opened.store.flush([...extra], [ended])
  return opened
}

test('tokens have ids, phases, and the distribution they were drawn from', async () => {
  const { app } = await openViews()
  const answer = await get(app, `${base}/tokens?${scope}`)
  expect(answer.statusCode).toBe(200)
  const body = answer.json()
  await expectDescribed(app, '/v1/traces/{trace_id}/tokens', body)
  expect(body).toMatchObject({
    trace_id: traceA,
    request_id: 'views',
    prompt_tokens: 3,
    total: 5,
    start: 0,
    vocabulary: 'unknown',
  })
  const third = Math.log(3)
  const nothing = { entropy: null, surprisal: null, confidence: null, margin: null }
  const shownThird = Number(third.toPrecision(5))
  expect(body.tokens).toMatchObject([
    { position: 0, id: 5, phase: 'prefill', ...nothing, has_alternatives: false },
    { position: 1, id: 2, phase: 'prefill', ...nothing, has_alternatives: false },
    // From the payload: the mean of the columns is over two rows and is not this token's.
    {
      position: 2,
      id: 1,
      phase: 'prefill',
      entropy: shownThird,
      surprisal: shownThird,
      confidence: 0.33333,
      margin: 0,
      has_alternatives: true,
    },
    { position: 3, id: 2, phase: 'decode', entropy: 0.8324, surprisal: 0.40761, margin: 1 },
    // Entropy, confidence and margin by the columns of the row; surprisal by that of the ids.
    { position: 4, id: 0, phase: 'decode', entropy: 0.12346, surprisal: 0.75, confidence: 0.9 },
  ])
  expect(body.missing).toEqual([
    expect.stringMatching(/^Texts: /),
    expect.stringMatching(/^Entropy, .* of position 1: no logits/),
  ])
})

test('tokens come by pages, and a page behind the end is empty', async () => {
  const { app } = await openViews()
  const page = (await get(app, `${base}/tokens?${scope}&start=3&limit=1`)).json()
  expect(page.tokens).toHaveLength(1)
  expect(page.tokens[0]).toMatchObject({ position: 3, id: 2, surprisal: 0.40761 })
  const behind = (await get(app, `${base}/tokens?${scope}&start=9`)).json()
  expect(behind).toMatchObject({ total: 5, start: 9, tokens: [] })
})

test('what is not stored is null, with the reason', async () => {
  const { app } = await openViews([stored({ tokenEnd: 2, shape: [2, 2] })])
  const body = (await get(app, `${base}/tokens?${scope}`)).json()
  expect(body.tokens[1]).toEqual({
    position: 1,
    id: null,
    text: null,
    phase: 'prefill',
    entropy: null,
    surprisal: null,
    confidence: null,
    margin: null,
    has_alternatives: false,
  })
  expect(body.missing.join('\n')).toMatch(/token_ids of this request is not stored/)
  expect(body.missing.join('\n')).toMatch(/final_logits of this request is not stored/)
})

test('a token whose row of ids is missing between others is null, with the reason', async () => {
  const { app } = await openViews(rows.filter((one) => one.hook !== 'token_ids' || one.step !== 1))
  for (const page of ['', '&start=3&limit=1', '&start=3&limit=2']) {
    const answer = await get(app, `${base}/tokens?${scope}${page}`)
    expect([page, answer.statusCode]).toEqual([page, 200])
    const { tokens, missing } = answer.json()
    const third = tokens.find((one: { position: number }) => one.position === 3)
    expect(third).toMatchObject({ id: null, text: null, surprisal: null, entropy: 0.8324 })
    expect(missing).toContain('Token ids of position 3: no row of token_ids has them.')
  }
  const answer = await get(app, `${base}/tokens/3/alternatives?${scope}`)
  expect(answer.statusCode).toBe(200)
  expect(answer.json()).toMatchObject({ position: 3, id: null, text: null, chosen_rank: null })
  expect(answer.json().alternatives).toHaveLength(3)
})

test('ids of a redacted hook are null, and the reason says so', async () => {
  const hidden = rows.map((one) => (one.hook === 'token_ids' ? { ...one, ...withoutPayload } : one))
  const { app } = await openViews(hidden)
  const body = (await get(app, `${base}/tokens?${scope}`)).json()
  expect(body.tokens.map((one: { id: number | null }) => one.id)).toEqual(Array(5).fill(null))
  expect(body.missing).toContain(
    'Token ids and texts: the hook token_ids is redacted (capture.redact_hooks).',
  )
  // A vocabulary would not help: nothing advises to send one.
  expect(body.missing.join('\n')).not.toMatch(/vocabulary|tokenizer/)
  // What the distribution was is no id.
  expect(body.tokens[3]).toMatchObject({ entropy: 0.8324, surprisal: null })
})

test('redacted logits leave what was measured, and no alternatives', async () => {
  const hidden = rows.map((one) =>
    one.hook === 'final_logits' ? { ...one, ...withoutPayload } : one,
  )
  const { app } = await openViews(hidden)
  const body = (await get(app, `${base}/tokens?${scope}`)).json()
  expect(body.tokens[4]).toMatchObject({ entropy: 0.12346, has_alternatives: false })
  expect(body.tokens[2].entropy).toBeNull()
  const answer = await get(app, `${base}/tokens/4/alternatives?${scope}`)
  expect(answer.json().code).toBe('RING2_E_REDACTED')
})

const texts = ['zero', ' one', null]
const fingerprint = createHash('sha256').update('4:zero4: one-:').digest('hex')

function flushVocabulary(store: Awaited<ReturnType<typeof openServer>>['store'], parts: number[]) {
  for (const part of parts) {
    const firstId = part * 2
    const some = texts.slice(firstId, firstId + 2)
    const facts = { model: model.name, fingerprint, parts: 2, part, firstId, texts: some }
    store.sink.vocabulary?.(facts, producer, noonMicros)
  }
  store.flush([])
}

test('tokens and alternatives have texts once the whole vocabulary is stored', async () => {
  const { app, store } = await openViews()
  const known = { ...model, vocabularyFingerprint: fingerprint }
  store.flush([], [{ ...ended, model: known }])
  flushVocabulary(store, [1])
  const before = await get(app, `${base}/tokens?${scope}`)
  expect(before.json().missing).toContain('Texts: not every part of the vocabulary is stored here.')
  flushVocabulary(store, [0, 1])
  const { etag } = before.headers
  const after = await get(app, `${base}/tokens?${scope}`, { 'if-none-match': etag })
  expect(after.json().vocabulary).toBe('known')
  const shown = after.json().tokens.map((one: { text: string | null }) => one.text)
  expect(shown).toEqual([null, null, ' one', null, 'zero'])
  const alternatives = (await get(app, `${base}/tokens/3/alternatives?${scope}`)).json()
  expect(alternatives.alternatives.map((one: { text: string }) => one.text)).toEqual([
    null,
    ' one',
    'zero',
  ])
})

test('alternatives are the most probable tokens, and say which was chosen', async () => {
  const { app } = await openViews()
  const path = `${base}/tokens/3/alternatives?${scope}&k=2`
  const body = (await get(app, path)).json()
  await expectDescribed(app, '/v1/traces/{trace_id}/tokens/{position}/alternatives', body)
  expect(body).toMatchObject({
    position: 3,
    id: 2,
    entropy: 0.8324,
    chosen_rank: 0,
    alternatives: [
      { id: 2, text: null, probability: 0.66524, logit: 3 },
      { id: 1, text: null, probability: 0.24473, logit: 2 },
    ],
  })
  // The token after the last was never fed back, so nobody knows which one it was.
  const after = (await get(app, `${base}/tokens/5/alternatives?${scope}`)).json()
  expect(after).toMatchObject({ position: 5, id: null, chosen_rank: null })
  expect(after.alternatives.map((one: { id: number }) => one.id)).toEqual([0, 1, 2])
})

test.each([
  ['0', 404, 'RING2_E_TENSOR_UNKNOWN'],
  ['1', 404, 'RING2_E_TENSOR_UNKNOWN'],
  ['99', 404, 'RING2_E_TENSOR_UNKNOWN'],
  ['x', 400, 'RING2_E_QUERY'],
])('alternatives of position %s are status %i', async (position, status, code) => {
  const { app } = await openViews()
  const answer = await get(app, `${base}/tokens/${position}/alternatives?${scope}`)
  expect([answer.statusCode, answer.json().code]).toEqual([status, code])
})

test('norms are those of the stored tokens, cells cover powers of two, gaps are null', async () => {
  const { app } = await openViews([
    stored({ tokenEnd: 2, shape: [2, 2], data: floats(3, 4, 6, 8) }),
    stored({ tokenStart: 4, tokenEnd: 5, step: 1, shape: [1, 2], data: floats(0, 1) }),
    stored({ layer: 1, tokenStart: 4, tokenEnd: 5, step: 1, shape: [1, 2], data: floats(5, 12) }),
  ])
  const whole = (await get(app, `${base}/views/norms?${scope}`)).json()
  await expectDescribed(app, '/v1/traces/{trace_id}/views/norms', whole)
  expect(whole).toMatchObject({ hook: 'resid_pre', layers: [0, 1], tokens: [0, 5] })
  expect(whole.tokens_per_cell).toBe(1)
  expect(whole.rows).toEqual([
    { layer: 0, mean: [5, 10, null, null, 1], max: [5, 10, null, null, 1] },
    { layer: 1, mean: [null, null, null, null, 13], max: [null, null, null, null, 13] },
  ])
  const cells = (await get(app, `${base}/views/norms?${scope}&columns=3`)).json()
  expect(cells.tokens_per_cell).toBe(2)
  expect(cells.rows[0]).toEqual({ layer: 0, mean: [7.5, null, 1], max: [10, null, 1] })
  const part = (await get(app, `${base}/views/norms?${scope}&tokens=1:4&columns=1`)).json()
  expect(part).toMatchObject({ tokens: [1, 4], tokens_per_cell: 4 })
  expect(part.rows[0]).toEqual({ layer: 0, mean: [10], max: [10] })
})

test('NaN and infinities are left out of a norm, and a row of nothing else has none', async () => {
  const { app } = await openViews([
    stored({
      tokenEnd: 2,
      shape: [2, 2],
      data: floats(3, Number.NaN, Number.NaN, Number.POSITIVE_INFINITY),
    }),
  ])
  const body = (await get(app, `${base}/views/norms?${scope}`)).json()
  expect(body.rows[0].mean).toEqual([3, null])
})

/** Two heads over two prompt tokens, one decode step, and a step that was lost. */
const patterns: readonly TensorRow[] = [
  stored({
    hook: 'pattern',
    tokenEnd: 2,
    shape: [2, 2, 2],
    data: floats(1, 0, 0.5, 0.5, 1, 0, 0.25, 0.75),
  }),
  stored({
    hook: 'pattern',
    phase: 'decode',
    step: 2,
    tokenStart: 3,
    tokenEnd: 4,
    shape: [2, 1, 4],
    data: floats(0.5, 0.25, 0.125, 0.125, 0.25, 0.25, 0.25, 0.25),
  }),
]

test('a tile of attention has a head, the mean over heads, gaps, sink and lookback', async () => {
  const { app } = await openViews(patterns)
  const path = `${base}/views/pattern/0?${scope}`
  const head = (await get(app, `${path}&head=0`)).json()
  await expectDescribed(app, '/v1/traces/{trace_id}/views/pattern/{layer}', head)
  expect(head).toMatchObject({
    layer: 0,
    head: 0,
    heads: 2,
    queries: [0, 4],
    keys: [0, 4],
    tokens_per_cell: 1,
    rows: 4,
    columns: 4,
  })
  const none = [null, null, null, null]
  expect(head.cells).toEqual(
    [[1, null, null, null], [0.5, 0.5, null, null], none, [0.5, 0.25, 0.125, 0.125]].flat(),
  )
  // Three queries are stored.
  expect(head.sink).toEqual({ key_mass: [0.66667, 0.25, 0.041667, 0.041667], first_key: 0.66667 })
  // Of the decode step, keys 0 to 2 are the prompt's.
  expect(head.lookback).toEqual([null, null, null, 0.875])
  const mean = (await get(app, path)).json()
  expect(mean.head).toBe('mean')
  expect(mean.cells.slice(4, 6)).toEqual([0.375, 0.625])
  expect(mean.cells.slice(12)).toEqual([0.375, 0.25, 0.1875, 0.1875])
})

test('a cell of attention is the largest probability that it covers', async () => {
  const { app } = await openViews(patterns)
  const path = `${base}/views/pattern/0?${scope}&head=0`
  const half = (await get(app, `${path}&size=2`)).json()
  expect(half).toMatchObject({ tokens_per_cell: 2, rows: 2, columns: 2 })
  expect(half.cells).toEqual([1, null, 0.5, 0.125])
  expect(half.sink.key_mass).toEqual([0.91667, 0.083333])
  expect(half.lookback).toEqual([null, 0.875])
  const part = (await get(app, `${path}&queries=3:4&keys=1:4&size=2`)).json()
  expect(part).toMatchObject({ queries: [3, 4], keys: [1, 4], tokens_per_cell: 2, rows: 1 })
  expect(part.cells).toEqual([0.25, 0.125])
  expect(part.sink).toEqual({ key_mass: [0.375, 0.125], first_key: 0.5 })
})

test.each([
  [`views/norms?${scope}&hook=pattern`, 400, 'RING2_E_QUERY'],
  [`views/norms?${scope}&hook=mlp_out`, 404, 'RING2_E_TENSOR_UNKNOWN'],
  [`views/norms?${scope}&columns=0`, 400, 'RING2_E_QUERY'],
  [`views/norms?${scope}&columns=1025`, 400, 'RING2_E_QUERY'],
  [`views/norms?${scope}&tokens=90:99`, 400, 'RING2_E_QUERY'],
  [`views/norms?${scope}&colour=red`, 400, 'RING2_E_QUERY'],
  [`views/pattern/7?${scope}`, 404, 'RING2_E_TENSOR_UNKNOWN'],
  [`views/pattern/0?${scope}&head=2`, 400, 'RING2_E_QUERY'],
  [`views/pattern/0?${scope}&head=min`, 400, 'RING2_E_QUERY'],
  [`views/pattern/0?${scope}&size=513`, 400, 'RING2_E_QUERY'],
  [`views/pattern/0?${scope}&queries=8:9`, 400, 'RING2_E_QUERY'],
  [`tokens?${scope}&limit=4097`, 400, 'RING2_E_QUERY'],
  ['tokens', 400, 'RING2_E_QUERY'],
  ['tokens?request_id=nobody', 404, 'RING2_E_TENSOR_UNKNOWN'],
  [`tokens?${scope}&producer=nobody`, 404, 'RING2_E_TENSOR_UNKNOWN'],
])('%s is a problem of status %i', async (path, status, code) => {
  const { app } = await openViews([...patterns, stored({ tokenEnd: 2, shape: [2, 2] })])
  const answer = await get(app, `${base}/${path}`)
  expect([answer.statusCode, answer.json().code]).toEqual([status, code])
})

test('two models under one request have to be told apart by the producer', async () => {
  const { app, store } = await openViews()
  const theirs = rows.map((one) => ({ ...one, model: otherModel, producer: otherProducer }))
  store.flush(theirs, [{ ...ended, model: otherModel, producer: otherProducer }], otherProducer)
  const unclear = await get(app, `${base}/tokens?${scope}`)
  expect(unclear.json()).toMatchObject({ code: 'RING2_E_QUERY', actual: 'no producer' })
  const chosen = await get(app, `${base}/tokens?${scope}&producer=draft-00c0ffee00c0ffee`)
  expect(chosen.json()).toMatchObject({ model: otherModel.name, total: 5 })
})

test('an unchanged view is not computed again for who has it; new rows change its tag', async () => {
  const { app, store } = await openViews(patterns)
  const path = `${base}/views/pattern/0?${scope}`
  const first = await get(app, path)
  const { etag } = first.headers
  store.counts.reads = 0
  const again = await get(app, path, { 'if-none-match': etag })
  expect([again.statusCode, again.payload]).toEqual([304, ''])
  await get(app, `${path}&size=2`)
  // Zooming draws from what is in memory.
  expect(store.counts.reads).toBe(0)
  const late = stored({
    hook: 'pattern',
    phase: 'decode',
    step: 1,
    tokenStart: 2,
    tokenEnd: 3,
    shape: [2, 1, 3],
    data: floats(0.5, 0.25, 0.25, 0.5, 0.25, 0.25),
  })
  store.flush([late], [])
  const newer = await get(app, path, { 'if-none-match': etag })
  expect(newer.statusCode).toBe(200)
  expect(newer.json().cells.slice(8, 11)).toEqual([0.5, 0.25, 0.25])
})
