/** Verdicts on their way through the drain: from tokens in a ring to a verdict, a metric, a count. */
import { expect, test } from 'vitest'
import { signals } from '../../collector/layout.gen.ts'
import { createVerdicts, noBaselines } from '../../collector/verdicts.ts'
import type { TestProducer } from '../helpers/producer.ts'
import { beginRequest, endRequest } from '../helpers/requests.ts'
import { createDrainFixture, drainAll } from './drain-fixture.ts'

const prompt = [100, 101, 102]

/** A request that generates these tokens, of which only the ids are captured. */
function writeTokens(producer: TestProducer, key: number, generated: readonly number[]): void {
  beginRequest(producer, key)
  const write = (step: number, start: number, tokens: readonly number[]) => {
    const phase = start === 0 ? ('prefill' as const) : ('decode' as const)
    const rows = [{ key, start, end: start + tokens.length, phase }]
    producer.step({ step, columns: tokens.length, rows })
    const ids = new Uint8Array(new BigInt64Array(tokens.map(BigInt)).buffer)
    producer.tensor({ hook: 'token_ids', step, dims: [1, tokens.length], dtype: 'int64' }, ids)
  }
  write(key * 1000, 0, prompt)
  for (const [index, token] of generated.entries()) {
    write(key * 1000 + 1 + index, prompt.length + index, [token])
  }
  endRequest(producer, key, prompt.length, generated.length + 1)
}

function open() {
  const fixture = createDrainFixture()
  const models: string[] = []
  const verdicts = createVerdicts({ rules: ['looping'], statistics: ['all'], book: noBaselines })
  const drain = fixture.open({ verdicts, onModel: ({ name }) => void models.push(name) })
  fixture.producer.model({ hooks: { token_ids: [-1] } })
  return { ...fixture, drain, models, verdicts }
}

test('tokens that go round in circles are looping, and others are not', () => {
  const { producer, drain, ended } = open()
  writeTokens(
    producer,
    1,
    Array.from({ length: 24 }, (_, index) => index % 3),
  )
  writeTokens(
    producer,
    2,
    Array.from({ length: 24 }, (_, index) => index * index),
  )
  drainAll(drain)
  expect(ended.map(({ verdict, findings }) => [verdict, findings[0]?.statistic])).toEqual([
    ['looping', 'token_ids.loop_period'],
    ['ok', undefined],
  ])
  expect(ended[0]?.findings[0]?.value).toBe(3)
})

test('repetition is folded once per request, with the request as exemplar', () => {
  const { producer, drain, ended, folds } = open()
  for (const key of [1, 2]) {
    writeTokens(
      producer,
      key,
      Array.from({ length: 20 }, (_, index) => index % 10),
    )
  }
  drainAll(drain)
  const id = [...signals].find(([, name]) => name === 'request_repetition')?.[0]
  const points = folds.read().flatMap(({ histograms }) => histograms)
  const [point, ...others] = points.filter(({ signal }) => signal === id)
  expect(others).toEqual([])
  expect(point).toMatchObject({ hook: 'token_ids', layer: -1, phase: 'decode', count: 2 })
  const repetition = ended[0]?.globals['token_ids.repetition'] ?? Number.NaN
  expect(point?.sum).toBeCloseTo(2 * repetition, 9)
  expect(ended.map(({ request }) => request.requestId)).toContain(point?.exemplar?.requestId)
})

test('a model is known as soon as it announces itself, before any request', () => {
  const { drain, models } = open()
  drainAll(drain)
  expect(models).toEqual(['tiny'])
})

test('the model without a baseline is counted with the reason', () => {
  const { producer, drain, verdicts } = open()
  writeTokens(producer, 1, [1, 2, 3, 4])
  drainAll(drain)
  expect(verdicts.unused()).toEqual([{ model: 'tiny', reason: 'no_entry', requests: 1 }])
  verdicts.setBook({ baselines: [], fault: 'RING2_E_BASELINE: damaged' })
  writeTokens(producer, 2, [1, 2, 3, 4])
  drainAll(drain)
  expect(verdicts.unused()).toContainEqual({ model: 'tiny', reason: 'damaged', requests: 1 })
})
