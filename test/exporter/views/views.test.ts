/** What views read again and when an answer counts as another one; their values: api/explorer.test.ts. */
import { expect, test } from 'vitest'
import type { RequestSummary, TensorRow } from '../../../collector/records.ts'
import { createViews } from '../../../exporter/views/views.ts'
import { floats, noonMicros, request, row, summary, traceA } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const info = request({ requestId: 'views' })
const scope = { traceId: traceA, requestId: 'views', producer: null }
const everything = { start: 0, limit: 10 }

function stored(change: Partial<TensorRow>): TensorRow {
  return row({ request: info, ...change })
}

function ended(change: Partial<RequestSummary> = {}): RequestSummary {
  return summary({ request: info, tokens: 4, promptTokens: 2, ...change })
}

function open(rows: readonly TensorRow[], headGroupBytesMax?: number) {
  const store = openFixture(temporaryFolder())
  store.flush(rows, [ended()])
  const options = { catalog: store.catalog, reader: store.reader() }
  const bound = headGroupBytesMax === undefined ? {} : { headGroupBytesMax }
  return { store, views: createViews({ ...options, ...bound }) }
}

function logits(step: number, entropyMean: number): TensorRow {
  return stored({
    hook: 'final_logits',
    layer: -1,
    phase: 'decode',
    step,
    tokenStart: 2,
    tokenEnd: 3,
    shape: [1, 3],
    data: floats(1, 2, 3),
    statistics: { entropyMean, top1ProbabilityMean: 0.5, marginMean: 1 },
  })
}

/** Three heads over two prompt tokens and two steps of decoding, of which the later has more keys. */
const patterns: readonly TensorRow[] = [
  stored({
    hook: 'pattern',
    tokenEnd: 2,
    shape: [3, 2, 2],
    data: floats(1, 0, 0.5, 0.5, 1, 0, 0.25, 0.75, 1, 0, 0, 1),
  }),
  ...[2, 3].map((position) =>
    stored({
      hook: 'pattern',
      phase: 'decode',
      step: position - 1,
      tokenStart: position,
      tokenEnd: position + 1,
      shape: [3, 1, position + 1],
      data: floats(...Array.from({ length: 3 * (position + 1) }, (_, index) => index / 16)),
    }),
  ),
]

test('of a step that was preempted and computed again, the later distribution counts', async () => {
  const { views } = open([logits(1, 0.5), logits(4, 0.25)])
  const { tokens } = await views.tokens(scope, everything).compute()
  expect(tokens[3]?.entropy).toBe(0.25)
  const turned = open([logits(1, 0.25), logits(4, 0.5)])
  expect((await turned.views.tokens(scope, everything).compute()).tokens[3]?.entropy).toBe(0.5)
})

test('the mean over heads is the same however many heads are read at once', async () => {
  const query = { layer: 0, head: 'mean', queries: null, keys: null, size: 16 } as const
  const whole = await open(patterns).views.pattern(scope, query).compute()
  // The bytes of one head, of two, and less than one.
  for (const bytes of [4 * 4 * 4, 2 * 4 * 4 * 4, 1]) {
    const { views } = open(patterns, bytes)
    expect(await views.pattern(scope, query).compute()).toEqual(whole)
  }
  expect(whole.cells.slice(4, 6)).toEqual([0.25, 0.75])
  expect(whole.cells.slice(12)).toEqual([0.25, 0.3125, 0.375, 0.4375])
})

test('zooming into norms and attention reads nothing', async () => {
  const { store, views } = open([
    ...patterns,
    stored({ tokenEnd: 2, shape: [2, 2], data: floats(3, 4, 6, 8) }),
    stored({ tokenStart: 2, tokenEnd: 3, step: 1, shape: [1, 2], data: floats(5, 12) }),
  ])
  const norms = { hook: 'resid_pre', tokens: null, columns: 16 }
  await views.norms(scope, norms).compute()
  const pattern = { layer: 0, head: 1, queries: null, keys: null, size: 16 }
  await views.pattern(scope, pattern).compute()
  store.counts.reads = 0
  const tokens = { start: 1, end: 3 }
  const near = await views.norms(scope, { ...norms, tokens }).compute()
  expect(near.rows[0]?.mean).toEqual([10, 13])
  await views.norms(scope, { ...norms, columns: 1 }).compute()
  const tile = await views.pattern(scope, { ...pattern, queries: tokens, keys: tokens }).compute()
  expect([tile.rows, tile.columns, tile.cells[0]]).toEqual([2, 2, 0.75])
  expect(store.counts.reads).toBe(0)
})

test('an answer is another one once what it says of the request is', () => {
  const { store, views } = open(patterns)
  const pattern = { layer: 0, head: 0, queries: null, keys: null, size: 16 }
  const tags = () => ({
    tokens: views.tokens(scope, everything).fingerprint,
    pattern: views.pattern(scope, pattern).fingerprint,
  })
  const first = tags()
  expect(tags()).toEqual(first)
  // What is prompt decides over lookback.
  store.flush([], [ended({ promptTokens: 3 })])
  const second = tags()
  expect(second.pattern).not.toBe(first.pattern)
  // When it ended decides over phases, and over what is said to be missing.
  store.flush([], [ended({ promptTokens: 3, endedAtMicros: noonMicros + 9_000_000 })])
  const third = tags()
  expect(third.tokens).not.toBe(second.tokens)
  store.flush([], [ended({ promptTokens: 3, endedAtMicros: noonMicros + 9_000_000, tokens: 9 })])
  const fourth = tags()
  expect(fourth.tokens).not.toBe(third.tokens)
  // A tensor of any hook may reach further than the tokens that are known.
  store.flush([stored({ hook: 'mlp_out', tokenStart: 9, tokenEnd: 20, shape: [11, 2] })], [])
  expect(tags().tokens).not.toBe(fourth.tokens)
})
