import { expect, onTestFinished, test } from 'vitest'
import { identify } from '../../collector/bodies.ts'
import { createFoldBook, OTHER_MODELS } from '../../collector/folds.ts'
import { signals } from '../../collector/layout.gen.ts'
import { collectorLimits } from '../../collector/limits.ts'
import type { HistogramPoint, RequestInfo } from '../../collector/records.ts'
import { float32 } from '../helpers/producer.ts'
import { stepValues, writeRequest } from '../helpers/requests.ts'
import { createDrainFixture, type DrainFixture, drainAll } from './drain-fixture.ts'

function book() {
  const folds = createFoldBook()
  onTestFinished(() => folds.destroy())
  return folds
}

function request(requestId: string): RequestInfo {
  return identify(1, requestId, null, { traceState: null, attributes: {}, startedAtMicros: 0 })
}

const l2Norm = [...signals].find(([, name]) => name === 'l2_norm')?.[0]

function norms({ folds }: DrainFixture, layer: number): HistogramPoint[] {
  const histograms = folds.read().flatMap((model) => model.histograms)
  return histograms.filter((one) => one.signal === l2Norm && one.layer === layer)
}

/** L2 norms that writeRequest's values have, per token. */
function expectedNorms(key: number, layer: number, step: number, tokens: number): number[] {
  const values = stepValues(key, layer, step, tokens)
  return Array.from({ length: tokens }, (_, t) => Math.hypot(...values.slice(t * 4, t * 4 + 4)))
}

test('points hold what was recorded: counts, sums, extremes and buckets', () => {
  const fixture = createDrainFixture()
  fixture.producer.model()
  writeRequest(fixture.producer, 1, 3, 2)
  drainAll(fixture.open())
  for (const layer of [0, 1]) {
    const found = norms(fixture, layer)
    expect(found.map(({ hook, phase }) => `${hook} ${phase}`).sort()).toEqual([
      'resid_pre decode',
      'resid_pre prefill',
    ])
    for (const [phase, expected] of [
      ['prefill', expectedNorms(1, layer, 0, 3)],
      ['decode', expectedNorms(1, layer, 1, 1)],
    ] as const) {
      const point = found.find((one) => one.phase === phase)
      expect(point).toMatchObject({ count: expected.length, zeroCount: 0 })
      expect(point?.sum).toBeCloseTo(
        expected.reduce((a, b) => a + b),
        2,
      )
      expect(point?.min).toBeCloseTo(Math.min(...expected), 2)
      expect(point?.max).toBeCloseTo(Math.max(...expected), 2)
      expectBuckets(point, expected)
    }
  }
})

/** Every sample lies in its bucket (base^i, base^(i+1)] of the OpenTelemetry data model. */
function expectBuckets(point: HistogramPoint | undefined, samples: readonly number[]): void {
  if (point === undefined) throw new Error('no point')
  const base = 2 ** (2 ** -point.scale)
  const counts = new Map<number, number>()
  for (const sample of samples) {
    const index = Math.ceil(Math.log(sample) / Math.log(base)) - 1
    counts.set(index, (counts.get(index) ?? 0) + 1)
  }
  const found = new Map(
    point.buckets.flatMap((count, index) => (count > 0 ? [[point.offset + index, count]] : [])) as [
      number,
      number,
    ][],
  )
  expect([...found].sort()).toEqual([...counts].sort())
}

test('points are cumulative, and counters are kept per hook and layer', () => {
  const fixture = createDrainFixture()
  fixture.producer.model()
  const drain = fixture.open()
  writeRequest(fixture.producer, 1, 3, 1)
  drainAll(drain)
  expect(norms(fixture, 0)[0]?.count).toBe(3)
  writeRequest(fixture.producer, 2, 5, 1)
  drainAll(drain)
  expect(norms(fixture, 0)[0]?.count).toBe(8)
  const elements = fixture.folds.read()[0]?.elements
  expect(elements).toEqual(
    [0, 1].map((layer) => ({
      hook: 'resid_pre',
      layer,
      elements: 32,
      nan: 0,
      positiveInfinity: 0,
      negativeInfinity: 0,
      invalidRows: 0,
      skippedRows: 0,
      massive: 0,
    })),
  )
})

test('values that are no numbers are counted and stay out of sums', () => {
  const fixture = createDrainFixture()
  const { producer } = fixture
  producer.model()
  producer.request({ key: 1, request_id: 'r' })
  producer.step({ step: 0, columns: 2, rows: [{ key: 1, start: 0, end: 2 }] })
  const values = [Number.NaN, Infinity, -Infinity, 1, 3, 4, 0, 0]
  producer.tensor({ hook: 'resid_pre', layer: 0, step: 0, dims: [1, 2, 4] }, float32(values))
  drainAll(fixture.open())
  expect(fixture.folds.read()[0]?.elements).toMatchObject([
    { elements: 8, nan: 1, positiveInfinity: 1, negativeInfinity: 1 },
  ])
  for (const point of norms(fixture, 0)) {
    expect(Number.isFinite(point.sum)).toBe(true)
    expect(point.max).toBeLessThanOrEqual(5)
  }
})

test('two segments that share a model share its points, and exemplars name the right trace', () => {
  const one = createDrainFixture({ name: 'one' })
  const two = createDrainFixture({ name: 'two' })
  for (const fixture of [one, two]) fixture.producer.model()
  // Both call their request 1; the one of `two` has the larger norms.
  const trace = (digit: string) => `00-${digit.repeat(32)}-${digit.repeat(16)}-01`
  for (const [fixture, digit, size] of [
    [one, 'a', 1],
    [two, 'b', 100],
  ] as const) {
    const { producer } = fixture
    producer.request({ key: 1, request_id: `r-${digit}`, traceparent: trace(digit) })
    producer.step({ step: 0, columns: 1, rows: [{ key: 1, start: 0, end: 1 }] })
    const values = float32([3 * size, 4 * size, 0, 0])
    producer.tensor({ hook: 'resid_pre', layer: 0, step: 0, dims: [1, 1, 4] }, values)
  }
  drainAll(one.open({ folds: one.folds }))
  const first = norms(one, 0)[0]?.exemplar
  expect(first).toMatchObject({ value: 5, traceId: 'a'.repeat(32) })
  drainAll(two.open({ folds: one.folds }))
  const models = one.folds.read()
  expect(models).toHaveLength(1)
  const point = models[0]?.histograms.find((histogram) => histogram.layer === 0)
  expect(point).toMatchObject({ count: 2, sum: 505, min: 5, max: 500 })
  expect(point?.exemplar).toMatchObject({
    value: 500,
    traceId: 'b'.repeat(32),
    spanId: expect.stringMatching(/^[0-9a-f]{16}$/),
  })
  expect(Math.abs(Date.now() * 1000 - (point?.exemplar?.atMicros ?? 0))).toBeLessThan(60e6)
})

test('an exemplar stays until a newer one comes, however often it is read', () => {
  const fixture = createDrainFixture()
  fixture.producer.model()
  writeRequest(fixture.producer, 1, 3, 1)
  drainAll(fixture.open())
  const first = norms(fixture, 0)[0]?.exemplar
  expect(first).toBeDefined()
  expect(norms(fixture, 0)[0]?.exemplar).toEqual(first)
})

test('models have folds of their own', () => {
  const folds = book()
  expect(folds.of('a')).toBe(folds.of('a'))
  expect(folds.of('a')).not.toBe(folds.of('b'))
  expect(folds.read().map(({ model }) => model)).toEqual(['a', 'b'])
  expect(folds.read().flatMap(({ histograms }) => histograms)).toEqual([])
})

test('a request has one key everywhere, and the oldest is forgotten beyond the bound', () => {
  const folds = book()
  const key = folds.keyOf(request('first'))
  expect(folds.keyOf({ ...request('first'), key: 99 })).toBe(key)
  expect(folds.keyOf(request('second'))).not.toBe(key)
  for (let index = 0; index < collectorLimits.exemplarRequestsMax; index++) {
    folds.keyOf(request(`other ${index}`))
  }
  expect(folds.keyOf(request('first'))).not.toBe(key)
})

test("exemplars name a request's new trace, those taken before too", () => {
  const fixture = createDrainFixture()
  fixture.producer.model()
  writeRequest(fixture.producer, 1, 3, 2)
  drainAll(fixture.open())
  const before = request('request-1')
  expect(norms(fixture, 0).map(({ exemplar }) => exemplar?.traceId)).toEqual([
    before.traceId,
    before.traceId,
  ])
  const after = { ...before, traceId: 'c'.repeat(32), spanId: 'd'.repeat(16) }
  fixture.folds.moved(before, after)
  for (const { exemplar } of norms(fixture, 0)) {
    expect(exemplar).toMatchObject({ traceId: after.traceId, spanId: after.spanId })
  }
  // A request that nobody has heard of changes nothing.
  fixture.folds.moved(request('other'), before)
  expect(norms(fixture, 0)[0]?.exemplar?.traceId).toBe(after.traceId)
})

test('exemplars carry the request id, and whether their trace is sampled', () => {
  for (const [flags, sampled] of [
    ['00', false],
    ['01', true],
    ['03', true],
  ] as const) {
    const fixture = createDrainFixture({ name: `flags-${flags}` })
    const { producer } = fixture
    const traceparent = `00-${'c'.repeat(32)}-${'d'.repeat(16)}-${flags}`
    producer.model()
    producer.request({ key: 1, request_id: 'r-1', traceparent })
    producer.step({ step: 0, columns: 1, rows: [{ key: 1, start: 0, end: 1 }] })
    const values = float32([3, 4, 0, 0])
    producer.tensor({ hook: 'resid_pre', layer: 0, step: 0, dims: [1, 1, 4] }, values)
    drainAll(fixture.open())
    const exemplar = { requestId: 'r-1', traceId: 'c'.repeat(32), value: 5, sampled }
    expect(norms(fixture, 0)[0]?.exemplar).toMatchObject(exemplar)
  }
})

test('samples of series beyond the bound are counted as refused, and nothing is reported twice', () => {
  const folds = book()
  const fold = folds.of('m')
  const samples = new Float64Array([1, 2])
  for (let layer = 0; layer < 16_384 + 3; layer += 1) {
    fold.record({ signal: 1, hook: 0, layer, phase: 0 }, samples, 0, 0)
  }
  const [points] = folds.read()
  expect(points?.histograms).toHaveLength(16_384)
  expect(points?.refused).toBe(6)
  expect(points?.elements).toEqual([])
})

test('models beyond the bound share one fold', () => {
  const folds = book()
  const own = Array.from({ length: collectorLimits.modelsMax }, (_, i) => folds.of(`m${i}`))
  expect(new Set(own).size).toBe(collectorLimits.modelsMax)
  expect(folds.of('one more')).toBe(folds.of('another'))
  expect(folds.of('m0')).toBe(own[0])
  const names = folds.read().map(({ model }) => model)
  expect(names).toHaveLength(collectorLimits.modelsMax + 1)
  expect(names.at(-1)).toBe(OTHER_MODELS)
})
