/**
 * Exactly once: an exporter that dies at any point of a flush, and the one that comes after it.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { checkpointPath, readCheckpoint } from '../../collector/checkpoint.ts'
import type { SegmentDrain } from '../../collector/drain-contract.ts'
import { float32 } from '../helpers/producer.ts'
import { beginRequest, endRequest, stepValues, writeStep } from '../helpers/requests.ts'
import {
  Crash,
  type CrashPoint,
  createDrainFixture,
  type DrainFixture,
  drainAll,
  placeOf,
} from './drain-fixture.ts'

const prompt = 3

/** Every row that requests of these many steps must give. */
function expectedRows(stepsOf: Record<number, number>): Map<string, Buffer> {
  const rows = new Map<string, Buffer>()
  for (const [key, steps] of Object.entries(stepsOf)) {
    for (let step = 0; step < steps; step++) {
      const tokens = step === 0 ? prompt : 1
      const start = step === 0 ? 0 : prompt + step - 1
      for (const layer of [0, 1]) {
        const place = `request-${key} resid_pre.${layer} step ${Number(key) * 1000 + step}`
        const range = `[${start},${start + tokens})`
        const values = float32(stepValues(Number(key), layer, step, tokens))
        rows.set(`${place} ${range}`, Buffer.from(values))
      }
    }
  }
  return rows
}

function expectStored({ store }: DrainFixture, stepsOf: Record<number, number>): void {
  const expected = expectedRows(stepsOf)
  expect(store.rows().map(placeOf).sort()).toEqual([...expected.keys()].sort())
  for (const row of store.rows()) expect(row.data).toEqual(expected.get(placeOf(row)))
}

/** Flushes, dies there, and leaves the segment as a killed process would. */
function flushAndDie({ store }: DrainFixture, drain: SegmentDrain, point: CrashPoint): void {
  store.crashAt = point
  expect(() => drain.flush()).toThrow(Crash)
  store.crashAt = null
  drain.close()
}

describe.each<[CrashPoint]>([
  ['before prepare'],
  ['after prepare'],
  ['before publish'],
  ['in publish'],
  ['after publish'],
])('an exporter that dies %s', (point) => {
  test('leaves every record to be stored once, and every request to be finished once', () => {
    const fixture = createDrainFixture()
    const { producer, store, open } = fixture
    producer.model()
    // Request 1 has ended, request 2 is in the middle, request 3 comes afterwards.
    beginRequest(producer, 1)
    for (const step of [0, 1, 2]) writeStep(producer, 1, step, prompt)
    endRequest(producer, 1, prompt, 3)
    beginRequest(producer, 2)
    writeStep(producer, 2, 0, prompt)
    const first = open()
    drainAll(first)
    flushAndDie(fixture, first, point)

    writeStep(producer, 2, 1, prompt)
    endRequest(producer, 2, prompt, 2)
    beginRequest(producer, 3)
    writeStep(producer, 3, 0, prompt)
    endRequest(producer, 3, prompt, 1)
    const second = open()
    drainAll(second)
    expect(second.flush()).toMatchObject({ status: 'success' })

    expectStored(fixture, { 1: 3, 2: 2, 3: 1 })
    expect(store.prepared.size).toBe(0)
    const summaries = store.summaries()
    expect(summaries.map(({ request }) => request.key).sort()).toEqual([1, 2, 3])
    for (const summary of summaries) {
      const key = summary.request.key
      const rows = store.rows().filter((row) => row.request.key === key)
      expect(summary.completeness).toMatchObject({ state: 'complete', reasons: [] })
      expect(summary.tensorsStored).toBe(rows.length)
      expect(summary.bytesStored).toBe(rows.reduce((sum, row) => sum + row.data.byteLength, 0))
    }
  })

  test('again and again still stores every record once', () => {
    const fixture = createDrainFixture()
    const { producer, open, store } = fixture
    producer.model()
    const steps = 8
    beginRequest(producer, 1)
    for (let step = 0; step < steps; step++) {
      writeStep(producer, 1, step, prompt)
      const drain = open()
      drainAll(drain)
      flushAndDie(fixture, drain, point)
    }
    endRequest(producer, 1, prompt, steps)
    producer.close()
    const last = open()
    while (!last.turn().finished) {
      // It finishes as soon as everything is stored.
    }
    expectStored(fixture, { 1: steps })
    expect(store.summaries()).toMatchObject([{ steps, completeness: { state: 'complete' } }])
  })

  test('with a step announced and its tensors still to come attributes them all the same', () => {
    const fixture = createDrainFixture()
    const { producer, open, store } = fixture
    producer.model()
    beginRequest(producer, 2)
    writeStep(producer, 2, 0, prompt)
    endRequest(producer, 2, prompt, 1)
    beginRequest(producer, 1)
    producer.step({ step: 1000, columns: prompt, rows: [{ key: 1, start: 0, end: prompt }] })
    const drain = open()
    drainAll(drain)
    flushAndDie(fixture, drain, point)
    for (const layer of [0, 1]) {
      const values = float32(stepValues(1, layer, 0, prompt))
      producer.tensor({ hook: 'resid_pre', layer, step: 1000, dims: [1, prompt, 4] }, values)
    }
    endRequest(producer, 1, prompt, 1)
    const next = open()
    drainAll(next)
    next.flush()
    expectStored(fixture, { 1: 1, 2: 1 })
    const states = store.summaries().map(({ completeness }) => completeness.state)
    expect(states).toEqual(['complete', 'complete'])
    expect(next.info().losses).toEqual([])
  })
})

test('a checkpoint that cannot be written stores nothing yet, and everything once afterwards', () => {
  const fixture = createDrainFixture()
  const { producer, open, store, stateDirectory } = fixture
  producer.model()
  beginRequest(producer, 1)
  writeStep(producer, 1, 0, prompt)
  const drain = open()
  drainAll(drain)
  rmSync(stateDirectory, { recursive: true })
  writeFileSync(stateDirectory, 'in the way')
  expect(drain.flush()).toMatchObject({ status: 'retryable', error: { code: 'RING2_E_STORE' } })
  expect(store.published.size).toBe(0)
  expect(drain.info().metaUsed).toBe(5)
  rmSync(stateDirectory)
  mkdirSync(stateDirectory)
  expect(drain.flush()).toMatchObject({ status: 'success' })
  expectStored(fixture, { 1: 1 })
})

test('an exporter that dies after a failed flush leaves no half of it behind', () => {
  const fixture = createDrainFixture()
  const { producer, open, store } = fixture
  producer.model()
  beginRequest(producer, 1)
  writeStep(producer, 1, 0, prompt)
  const drain = open()
  drainAll(drain)
  store.failing = 'publish'
  expect(drain.flush().status).toBe('retryable')
  drain.close()
  store.failing = null
  const next = open()
  endRequest(producer, 1, prompt, 1)
  drainAll(next)
  next.flush()
  expectStored(fixture, { 1: 1 })
  expect(store.summaries()).toHaveLength(1)
})

test('a damaged checkpoint stops the drain with what to do, and touches nothing', () => {
  const fixture = createDrainFixture()
  const { producer, open, store, stateDirectory } = fixture
  producer.model()
  beginRequest(producer, 1)
  writeStep(producer, 1, 0, prompt)
  const drain = open()
  drainAll(drain)
  flushAndDie(fixture, drain, 'before publish')
  const path = checkpointPath(stateDirectory, drain.producer)
  writeFileSync(path, '{')
  const prepared = [...store.prepared.keys()]
  expect(() => open()).toThrow(expect.objectContaining({ code: 'RING2_E_STORE' }))
  expect([...store.prepared.keys()]).toEqual(prepared)
  // The segment was given back: without the file it can be drained again.
  rmSync(path)
  const next = open()
  drainAll(next)
  next.flush()
  expectStored(fixture, { 1: 1 })
})

test('after a crash a request comes again unless its summary is safe', () => {
  const { producer, open, store, ended } = createDrainFixture()
  producer.model()
  const write = (key: number) => {
    beginRequest(producer, key)
    writeStep(producer, key, 0, prompt)
    endRequest(producer, key, prompt, 1)
  }
  const keys = () => ended.map(({ request }) => request.key)
  write(1)
  const drain = open()
  drainAll(drain)
  drain.flush()
  write(2)
  drainAll(drain)
  expect(keys()).toEqual([1, 2])
  // Killed before the flush that would have made the second one safe.
  drain.close()
  const next = open()
  drainAll(next)
  next.flush()
  expect(keys()).toEqual([1, 2, 2])
  expect(store.summaries()).toHaveLength(2)
})

test('the checkpoint names the position, the open steps and the active requests', () => {
  const { producer, open, stateDirectory } = createDrainFixture()
  producer.model()
  beginRequest(producer, 1)
  writeStep(producer, 1, 0, prompt)
  const drain = open()
  drainAll(drain)
  drain.flush()
  const checkpoint = readCheckpoint(stateDirectory, drain.producer)
  expect(checkpoint).toMatchObject({
    segment: 'test',
    boot: drain.producer.boot,
    position: 5,
    files: ['file-0'],
    registry: { model: { name: 'tiny' }, requests: [{ info: { key: 1 }, steps: 1, tokens: 3 }] },
  })
  expect(checkpoint?.steps).toHaveLength(1)
})
