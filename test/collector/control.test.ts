/**
 * What is wanted, from a policy to the words in the segment and back: what a request's steps were to
 * hold is judged by the policy that they were captured by.
 */
import { expect, test } from 'vitest'
import { createControlBook } from '../../collector/control-book.ts'
import { constants, control } from '../../collector/layout.gen.ts'
import { collectorLimits } from '../../collector/limits.ts'
import { type CapturePolicy, everything, planCapture } from '../../collector/policy.ts'
import type { TestProducer } from '../helpers/producer.ts'
import { createDrainFixture, drainAll } from './drain-fixture.ts'

const { controlSequenceCreated: created } = constants
const plan = (change: Partial<CapturePolicy> = {}) => planCapture({ ...everything, ...change })
const onlyLogits = { stats: ['final_logits'], tensors: [] }
const model = { hooks: { resid_pre: [0, 1], final_logits: [-1] } }

/** One request alone: its prompt of two tokens in step 0, then one token a step. */
function step(producer: TestProducer, number: number, hooks: readonly string[], key = 1): void {
  const { sequence } = producer.control()
  const [start, end] = number === 0 ? [0, 2] : [number + 1, number + 2]
  const phase = number === 0 ? 'prefill' : 'decode'
  const rows = [{ key, start, end, phase } as const]
  producer.step({ step: number, columns: end - start, sequence, rows })
  write(producer, number, hooks, end - start)
}

function write(producer: TestProducer, number: number, hooks: readonly string[], tokens: number) {
  const bytes = (count: number) => new Uint8Array(new Float32Array(count).fill(1).buffer)
  for (const layer of hooks.includes('resid_pre') ? [0, 1] : []) {
    const dims = [1, tokens, 4]
    producer.tensor({ hook: 'resid_pre', layer, step: number, dims }, bytes(4 * tokens))
  }
  if (!hooks.includes('final_logits')) return
  producer.tensor({ hook: 'final_logits', step: number, dims: [1, 1, 8] }, bytes(8))
}

const all = ['resid_pre', 'final_logits']
const end = (steps: number) => ({ key: 1, steps, tokens: steps + 1, outcome: 'ok' })

test('a new segment is told nothing when everything is wanted, and a change once', () => {
  const { producer, open } = createDrainFixture()
  const drain = open()
  expect(producer.control().sequence).toBe(created)
  drain.setPlan(plan(onlyLogits))
  const { sequence } = producer.control()
  expect(sequence).toBeGreaterThan(created)
  expect(producer.wants('resid_pre', 0)).toBe(false)
  drain.setPlan(plan(onlyLogits))
  expect(producer.control().sequence).toBe(sequence)
  drain.setPlan(plan({ stats: [], tensors: [] }))
  expect(producer.control().wantsNothing()).toBe(true)
  drain.setPlan(plan())
  expect(producer.control().wantsNothing()).toBe(false)
})

test('a hook that is switched off within a request is expected until then, and stored until then', () => {
  const { producer, open, ended, store } = createDrainFixture()
  const drain = open()
  producer.model(model)
  producer.request({ key: 1, request_id: 'one' })
  step(producer, 0, all)
  step(producer, 1, all)
  // Steps 0 and 1 are still in the ring when the policy changes.
  drain.setPlan(plan(onlyLogits))
  step(producer, 2, ['final_logits'])
  producer.requestEnd(end(3))
  drainAll(drain)
  drain.flush()
  expect(ended[0]?.completeness).toEqual({
    state: 'sampled',
    expected: 7,
    seen: 7,
    reasons: ['resid_pre: wanted in 2 of 3 steps'],
  })
  const stored = store.rows().map(({ hook, step: number }) => `${hook} ${number}`)
  expect(stored.filter((row) => row === 'resid_pre 1')).toHaveLength(2)
  expect(stored).toContain('final_logits 1')
  expect(stored).not.toContain('final_logits 2')
})

test('a record that was wanted and did not come is missed, whatever is wanted later', () => {
  const { producer, open, ended } = createDrainFixture()
  const drain = open()
  producer.model(model)
  producer.request({ key: 1, request_id: 'one' })
  step(producer, 0, ['final_logits'])
  drain.setPlan(plan(onlyLogits))
  step(producer, 1, ['final_logits'])
  producer.requestEnd(end(2))
  drainAll(drain)
  expect(ended[0]?.completeness).toMatchObject({
    state: 'incomplete',
    reasons: ['resid_pre: 2 of 2 records missing', 'resid_pre: wanted in 1 of 2 steps'],
  })
})

test('an exporter that comes later knows what steps were captured by, if it was written down', () => {
  const { producer, open, ended } = createDrainFixture()
  const first = open()
  producer.model(model)
  producer.request({ key: 1, request_id: 'one' })
  step(producer, 0, all)
  first.setPlan(plan(onlyLogits))
  step(producer, 1, ['final_logits'])
  drainAll(first)
  first.flush()
  first.close()
  step(producer, 2, ['final_logits'])
  // The next one is configured otherwise, and says so to the producer.
  const before = producer.control().sequence
  const second = open({ plan: plan() })
  expect(producer.control().sequence).toBeGreaterThan(before)
  step(producer, 3, all)
  producer.requestEnd(end(4))
  drainAll(second)
  expect(ended[0]?.completeness).toMatchObject({ state: 'sampled', expected: 8, seen: 8 })
})

test('a step that was captured by words nobody knows of is a doubt', () => {
  const { producer, open, ended } = createDrainFixture()
  const first = open({ plan: plan(onlyLogits) })
  producer.model(model)
  producer.request({ key: 1, request_id: 'one' })
  step(producer, 0, ['final_logits'])
  // It dies before it writes anything down.
  first.close()
  const second = open({ plan: plan() })
  step(producer, 1, all)
  producer.requestEnd(end(2))
  drainAll(second)
  expect(ended[0]?.completeness).toMatchObject({
    state: 'unknown',
    reasons: expect.arrayContaining(['1 of 2 steps were captured by a policy not known here']),
  })
})

test('a producer that knows no sequences is believed until the policy changes', () => {
  const { producer, open, ended } = createDrainFixture()
  const drain = open({ plan: plan(onlyLogits) })
  producer.model(model)
  const old = (key: number, number: number) => {
    producer.step({ step: number, columns: 2, rows: [{ key, start: 0, end: 2 }] })
    write(producer, number, ['final_logits'], 2)
    producer.requestEnd({ key, steps: 1, tokens: 2, outcome: 'ok' })
  }
  producer.request({ key: 1, request_id: 'before' })
  old(1, 0)
  drainAll(drain)
  drain.setPlan(plan())
  producer.request({ key: 2, request_id: 'after' })
  old(2, 1)
  drainAll(drain)
  expect(ended.map(({ completeness }) => completeness.state)).toEqual(['complete', 'unknown'])
})

test('of a producer that does not ask, requests and tokens that nobody wants are left out', () => {
  const { producer, open, ended, store } = createDrainFixture()
  const drain = open({ plan: plan({ sampledOnly: true, prefill: false, decodeEvery: 2 }) })
  producer.model(model)
  const flags = { yes: '01', no: '00' }
  for (const [index, name] of (['yes', 'no'] as const).entries()) {
    const key = index + 1
    const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-${flags[name]}`
    producer.request({ key, request_id: name, traceparent })
    for (const [at, start] of [0, 2, 3, 4].entries()) {
      const number = index * 4 + at
      const phase = at === 0 ? 'prefill' : 'decode'
      const stop = at === 0 ? 2 : start + 1
      const rows = [{ key, start, end: stop, phase } as const]
      producer.step({ step: number, columns: stop - start, rows })
      write(producer, number, all, stop - start)
    }
    producer.requestEnd({ key, steps: 4, tokens: 5, outcome: 'ok' })
  }
  drainAll(drain)
  drain.flush()
  expect(ended.map(({ request }) => request.requestId)).toEqual(['yes'])
  expect(ended[0]).toMatchObject({ steps: 2, tokens: 5 })
  expect(ended[0]?.completeness).toMatchObject({
    state: 'sampled',
    kept: [
      [2, 3],
      [4, 5],
    ],
  })
  expect(new Set(store.rows().map((row) => `${row.request.requestId} ${row.tokenStart}`))).toEqual(
    new Set(['yes 2', 'yes 4']),
  )
})

test('steps that the producer left out are no gap, and others are', () => {
  const { producer, open, ended } = createDrainFixture()
  const drain = open()
  producer.model(model)
  for (const [key, more] of [
    [1, { steps_left_out: 2 }],
    [2, {}],
  ] as const) {
    producer.request({ key, request_id: `request-${key}` })
    step(producer, 10 * key - 10, all, key)
    const rows = [{ key, start: 20, end: 21, phase: 'decode' } as const]
    producer.step({ step: 10 * key, columns: 1, sequence: created, rows })
    write(producer, 10 * key, all, 1)
    producer.requestEnd({ key, steps: 2, tokens: 21, outcome: 'ok', ...more })
  }
  drainAll(drain)
  const [sampled, doubted] = ended.map(({ completeness }) => completeness)
  expect(sampled).toMatchObject({ state: 'sampled', kept: [expect.anything(), [20, 21]] })
  expect(doubted?.state).toBe('unknown')
})

test('an extra step is stored and measured, and counts for nothing', () => {
  const { producer, open, ended, store } = createDrainFixture()
  const drain = open()
  producer.model({ hooks: { ...model.hooks, pattern: [0] }, computed: ['pattern'] })
  producer.request({ key: 1, request_id: 'one' })
  step(producer, 0, all)
  const { sequence } = producer.control()
  producer.step({
    ...{ step: 7, columns: 1, sequence, extra: true },
    rows: [{ key: 1, start: 1, end: 2, phase: 'prefill' }],
  })
  const pattern = new Uint8Array(new Float32Array([0.5, 0.5, 1, 0]).buffer)
  producer.tensor({ hook: 'pattern', layer: 0, step: 7, dims: [1, 2, 1, 2] }, pattern)
  producer.requestEnd({ key: 1, steps: 1, tokens: 2, outcome: 'ok' })
  drainAll(drain)
  drain.flush()
  expect(ended[0]?.steps).toBe(1)
  expect(ended[0]?.completeness).toMatchObject({ state: 'complete', expected: 3, seen: 3 })
  const row = store.rows().find(({ hook }) => hook === 'pattern')
  expect(row).toMatchObject({ tokenStart: 1, tokenEnd: 2, shape: [2, 1, 2] })
  expect(row?.statistics.entropyMean).toBeGreaterThan(0)
})

test('a step that is announced again, as its last tensor comes late, is counted once', () => {
  const { producer, open, ended, store } = createDrainFixture()
  const drain = open()
  producer.model(model)
  producer.request({ key: 1, request_id: 'one' })
  const late = 'final_logits'
  step(
    producer,
    0,
    all.filter((hook) => hook !== late),
  )
  drainAll(drain)
  const { sequence } = producer.control()
  // More steps than a drain remembers, of somebody else.
  producer.request({ key: 2, request_id: 'other' })
  for (let number = 1; number <= 300; number++) {
    const rows = [{ key: 2, start: number, end: number + 1, phase: 'decode' as const }]
    producer.step({ step: number, columns: 1, sequence, rows })
    drainAll(drain)
  }
  producer.step({
    ...{ step: 0, columns: 2, sequence, again: true },
    rows: [{ key: 1, start: 0, end: 2 }],
  })
  const logits = new Uint8Array(new Float32Array([0, 1, 2]).buffer)
  producer.tensor({ hook: late, layer: -1, step: 0, dims: [1, 1, 3] }, logits)
  producer.requestEnd({ key: 1, steps: 1, tokens: 2, outcome: 'ok' })
  drainAll(drain)
  drain.flush()
  expect(ended[0]?.steps).toBe(1)
  expect(ended[0]?.completeness.state).toBe('complete')
  const row = store.rows().find(({ hook }) => hook === late)
  expect(row).toMatchObject({ tokenStart: 1, tokenEnd: 2 })
})

test('a step that is announced again is judged by what it was captured by, however old it is', () => {
  let sequence: number = created
  const consumer = {
    control: () => new Uint8Array(control.bytes),
    setControl: () => {
      sequence += 2
      return sequence
    },
  }
  const book = createControlBook(consumer, plan())
  const before = sequence
  book.apply(plan(onlyLogits))
  const last = collectorLimits.checkpointStepsMax - 1
  book.step(0, before)
  for (let step = 1; step <= last; step++) book.step(step, sequence)
  book.step(0, before)
  book.step(last + 1, sequence)
  expect(book.actionOf(0, 0, 0)).not.toBe(constants.actionDrop)
  expect(book.actionOf(last, 0, 0)).toBe(constants.actionDrop)
})
