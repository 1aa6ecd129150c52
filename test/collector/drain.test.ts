import { existsSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { checkpointPath } from '../../collector/checkpoint.ts'
import { crc32c } from '../../collector/native.ts'
import { planCapture } from '../../collector/policy.ts'
import { float32 } from '../helpers/producer.ts'
import {
  beginRequest,
  endRequest,
  stepValues,
  writeRequest,
  writeStep,
} from '../helpers/requests.ts'
import { createDrainFixture, drainAll, placeOf } from './drain-fixture.ts'

describe('what was written', () => {
  test('comes as rows with its bytes, place, statistics, checksum and identity', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 3, 2)
    const drain = open()
    drainAll(drain)
    expect(drain.flush()).toMatchObject({ status: 'success' })
    const rows = store.rows()
    expect(rows).toHaveLength(4)
    const last = rows.at(-1)
    expect(last).toMatchObject({
      request: { key: 1, requestId: 'request-1', traceOrigin: 'derived' },
      model: { name: 'tiny', hooks: { resid_pre: [0, 1] } },
      producer: { segment: 'test', host: 'host-1', pid: process.pid },
      hook: 'resid_pre',
      layer: 1,
      step: 1001,
      phase: 'decode',
      tokenStart: 3,
      tokenEnd: 4,
      dtype: 'float32',
      shape: [1, 4],
      nonfinite: 0,
    })
    const values = stepValues(1, 1, 1, 1)
    const expected = Buffer.from(float32(values))
    expect(last?.data).toEqual(expected)
    expect(last?.crc32c).toBe(crc32c(expected))
    expect(last?.statistics.l2Mean).toBeCloseTo(Math.hypot(...values), 6)
    expect(last?.statistics.absMax).toBe(1113)
    expect(Math.abs(Date.now() * 1000 - (last?.capturedAtMicros ?? 0))).toBeLessThan(60e6)
  })

  test('of a request that ended gives a summary, to the store and to whoever listens', () => {
    const { producer, store, ended, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 3, 2)
    const drain = open()
    drainAll(drain)
    drain.flush()
    expect(store.summaries()).toEqual(ended)
    expect(ended).toEqual([
      expect.objectContaining({
        tokens: 4,
        promptTokens: 3,
        steps: 2,
        verdict: 'ok',
        completeness: { state: 'complete', expected: 4, seen: 4, reasons: [] },
        tensorsStored: 4,
        bytesStored: 2 * (3 + 1) * 16,
        phases: [
          expect.objectContaining({ phase: 'prefill', tokenStart: 0, tokenEnd: 3, steps: 1 }),
          expect.objectContaining({ phase: 'decode', tokenStart: 3, tokenEnd: 4, steps: 1 }),
        ],
      }),
    ])
    const series = ended[0]?.layerSeries['resid_pre.l2_mean']
    const norm = (layer: number, step: number, token: number) =>
      Math.hypot(...stepValues(1, layer, step, 3).slice(token * 4, token * 4 + 4))
    const mean = (layer: number) =>
      (norm(layer, 0, 0) + norm(layer, 0, 1) + norm(layer, 0, 2) + norm(layer, 1, 0)) / 4
    expect(series?.[0]).toBeCloseTo(mean(0), 3)
    expect(series?.[1]).toBeCloseTo(mean(1), 3)
  })

  test('by several requests in one tensor is cut apart, and each gets its own bytes', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    for (const key of [1, 2, 3]) beginRequest(producer, key)
    // Three requests, left-padded to four columns; heads and queries make two of them strided.
    producer.step({
      step: 0,
      columns: 4,
      rows: [
        { key: 1, start: 0, end: 4 },
        { key: 2, start: 0, end: 2, rowOffset: 2, kvOffset: 2 },
        { key: 3, start: 0, end: 1, rowOffset: 3, kvOffset: 3 },
      ],
    })
    const pattern = Array.from({ length: 3 * 2 * 4 * 4 }, (_, index) => index)
    producer.tensor({ hook: 'pattern', layer: 0, step: 0, dims: [3, 2, 4, 4] }, float32(pattern))
    const states = Array.from({ length: 3 * 4 * 4 }, (_, index) => index)
    producer.tensor({ hook: 'resid_pre', layer: 0, step: 0, dims: [3, 4, 4] }, float32(states))
    const drain = open()
    drainAll(drain)
    drain.flush()
    const cut = (batch: number, from: number) =>
      [0, 1].flatMap((head) =>
        [0, 1, 2, 3]
          .slice(from)
          .flatMap((query) =>
            [0, 1, 2, 3].slice(from).map((key) => batch * 32 + head * 16 + query * 4 + key),
          ),
      )
    const found = (key: number, hook: string) =>
      store.rows().find((row) => row.request.key === key && row.hook === hook)
    for (const [key, from] of [
      [1, 0],
      [2, 2],
      [3, 3],
    ] as const) {
      const row = found(key, 'pattern')
      expect(row?.shape).toEqual([2, 4 - from, 4 - from])
      expect(row?.data).toEqual(Buffer.from(float32(cut(key - 1, from))))
      expect(row?.crc32c).toBe(crc32c(row?.data ?? new Uint8Array(0)))
      const tokens = states.slice((key - 1) * 16 + from * 4, key * 16)
      expect(found(key, 'resid_pre')?.data).toEqual(Buffer.from(float32(tokens)))
    }
    expect(store.rows()).toHaveLength(6)
  })

  test('is dropped, measured or stored as the policy says, and the producer is told', () => {
    const { producer, store, folds, ended, open } = createDrainFixture()
    producer.model({ hooks: { resid_pre: [0, 1], q: [0] } })
    expect(producer.wants('q', 0)).toBe(true)
    const drain = open({ plan: planCapture({ stats: ['resid_pre'], tensors: [] }) })
    expect(producer.wants('q', 0)).toBe(false)
    expect(producer.wants('resid_pre', 1)).toBe(true)
    writeRequest(producer, 1, 2, 1)
    drainAll(drain)
    drain.flush()
    expect(store.rows()).toEqual([])
    expect(ended[0]).toMatchObject({
      tensorsStored: 0,
      bytesStored: 0,
      completeness: { state: 'complete', expected: 2 },
    })
    expect(ended[0]?.layerSeries['resid_pre.l2_mean']).toHaveLength(2)
    const norms = folds.read()[0]?.histograms.filter(({ signal }) => signal === 0)
    expect(norms?.map(({ layer, count }) => [layer, count])).toEqual([
      [0, 2],
      [1, 2],
    ])
  })
})

describe('the ring', () => {
  test('keeps its records until a flush, and has room again after it', () => {
    const { producer, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 3, 2)
    const drain = open()
    drainAll(drain)
    expect(drain.info().metaUsed).toBe(9)
    expect(drain.lagSeconds()).toBeGreaterThan(0)
    drain.flush()
    expect(drain.info().metaUsed).toBe(0)
    expect(drain.lagSeconds()).toBe(0)
  })

  test('is flushed unasked when a quarter of it waits, so that a small one never fills', () => {
    const { producer, store, open } = createDrainFixture({ payloadBytes: 65_536, metaSlots: 256 })
    producer.model()
    const drain = open()
    // Twenty times what the ring holds.
    const written = 20 * 8
    const values = float32(Array.from({ length: 2048 }, (_, index) => index))
    beginRequest(producer, 1)
    for (let step = 0; step < written; step++) {
      producer.step({
        step,
        columns: 512,
        rows: [{ key: 1, start: step * 512, end: step * 512 + 512 }],
      })
      expect(
        producer.tensor({ hook: 'resid_pre', layer: 0, step, dims: [1, 512, 4] }, values),
      ).toBe('ok')
      drain.turn()
    }
    drain.flush()
    expect(store.rows()).toHaveLength(written)
    expect(drain.info().losses).toEqual([])
  })

  test('that was full gives a summary that names the loss, and never a false complete', () => {
    const { producer, ended, open } = createDrainFixture({ payloadBytes: 65_536, metaSlots: 64 })
    producer.model()
    beginRequest(producer, 1)
    const big = float32(Array.from({ length: 4096 }, () => 1))
    let refused = 0
    for (let step = 0; step < 6; step++) {
      producer.step({
        step,
        columns: 1024,
        rows: [{ key: 1, start: step * 1024, end: (step + 1) * 1024 }],
      })
      const tensor = { hook: 'resid_pre', layer: 0, step, dims: [1, 1024, 4] }
      if (producer.tensor(tensor, big) === 'full') refused += 1
    }
    expect(refused).toBeGreaterThan(0)
    const drain = open()
    drainAll(drain)
    drain.flush()
    producer.requestEnd({ key: 1, steps: 6, tokens: 6144, prompt_tokens: 6144, outcome: 'ok' })
    drainAll(drain)
    expect(ended[0]?.completeness.state).toBe('incomplete')
    expect(ended[0]?.completeness.reasons.join('\n')).toMatch(/lost \d+ records \(payload_full\)/)
    expect(ended[0]?.verdict).toBe('unknown')
    const lost = drain.info().losses.find(({ reason }) => reason === 'payload_full')
    expect(lost).toMatchObject({ records: refused, bytes: refused * big.byteLength })
  })
})

describe('a tensor without a request', () => {
  test('whose STEP never came is dropped and counted', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    beginRequest(producer, 1)
    producer.tensor(
      { hook: 'resid_pre', layer: 0, step: 77, dims: [1, 2, 4] },
      float32(Array(8).fill(1)),
    )
    writeStep(producer, 1, 0, 2)
    const drain = open()
    drainAll(drain)
    drain.flush()
    expect(drain.info().losses).toEqual([{ reason: 'unattributed', records: 1, bytes: 32 }])
    expect(store.rows().map(placeOf)).toEqual([
      'request-1 resid_pre.0 step 1000 [0,2)',
      'request-1 resid_pre.1 step 1000 [0,2)',
    ])
  })

  test('that comes after the request has ended is dropped aloud', () => {
    const { producer, store, events, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 2, 1)
    const drain = open()
    drainAll(drain)
    const tensor = { hook: 'resid_pre', layer: 0, step: 1000, dims: [1, 2, 4] }
    producer.tensor(tensor, float32(stepValues(9, 9, 9, 2)))
    drainAll(drain)
    drain.flush()
    expect(store.rows()).toHaveLength(2)
    expect(events).toContainEqual(
      expect.objectContaining({ level: 'warn', facts: { segment: 'test', tensors: 1 } }),
    )
  })

  test('is never given to another one whose key a fold happens to use', () => {
    const { producer, store, ended, open } = createDrainFixture()
    producer.model()
    // Fold keys count from 1, so request 7 is folded as 1, and an orphan of key 1 must not join it.
    writeRequest(producer, 7, 2, 1)
    const drain = open()
    drainAll(drain)
    producer.step({ step: 5, columns: 2, rows: [{ key: 1, start: 0, end: 2 }] })
    producer.requestEnd({ key: 1, steps: 1, tokens: 2, outcome: 'ok' })
    drainAll(drain)
    beginRequest(producer, 8)
    writeStep(producer, 8, 0, 2)
    producer.tensor(
      { hook: 'resid_pre', layer: 0, step: 5, dims: [1, 2, 4] },
      float32(stepValues(9, 9, 9, 2)),
    )
    endRequest(producer, 8, 2, 1)
    drainAll(drain)
    drain.flush()
    expect(store.rows().filter((row) => row.request.key === 8)).toHaveLength(2)
    expect(ended.find(({ request }) => request.key === 8)?.tensorsStored).toBe(2)
  })
})

describe('a store that fails', () => {
  test.each(['prepare', 'publish'] as const)(
    'in %s keeps everything in the ring, says so, and gets everything when it works again',
    (failing) => {
      const { producer, store, events, open } = createDrainFixture()
      producer.model()
      writeRequest(producer, 1, 3, 2)
      const drain = open()
      store.failing = failing
      drainAll(drain)
      expect(drain.flush()).toMatchObject({ status: 'retryable' })
      expect(drain.failures()).toBe(1)
      expect(drain.info().metaUsed).toBe(9)
      expect(store.rows()).toEqual([])
      expect(events.at(-1)).toMatchObject({
        level: 'error',
        message: 'could not store; the data waits in the ring',
        facts: { segment: 'test', error: 'the disk is full' },
      })
      writeRequest(producer, 2, 3, 2)
      drainAll(drain)
      expect(drain.flush()).toMatchObject({ status: 'retryable' })
      store.failing = null
      expect(drain.flush()).toMatchObject({ status: 'success' })
      expect(store.rows()).toHaveLength(8)
      expect(new Set(store.rows().map(placeOf)).size).toBe(8)
      expect(store.summaries().map(({ request }) => request.key)).toEqual([1, 2])
      expect(drain.info().metaUsed).toBe(0)
    },
  )

  test('makes a full ring lose what comes next, counted, and nothing that it holds', () => {
    const { producer, store, open } = createDrainFixture({ metaSlots: 64 })
    producer.model()
    beginRequest(producer, 1)
    const drain = open()
    store.failing = 'prepare'
    let accepted = 0
    for (let step = 0; step < 60; step++) {
      const tensor = { hook: 'resid_pre', layer: 0, step, dims: [1, 1, 4] }
      producer.step({ step, columns: 1, rows: [{ key: 1, start: step, end: step + 1 }] })
      if (producer.tensor(tensor, float32(stepValues(1, 0, step, 1))) === 'ok') accepted += 1
      drain.turn()
    }
    expect(accepted).toBeLessThan(60)
    store.failing = null
    expect(drain.flush()).toMatchObject({ status: 'success' })
    expect(store.rows()).toHaveLength(accepted)
    for (const row of store.rows()) {
      expect(row.data).toEqual(Buffer.from(float32(stepValues(1, 0, row.step, 1))))
    }
    const lost = drain.info().losses.reduce((sum, loss) => sum + loss.records, 0)
    expect(lost).toBeGreaterThanOrEqual(60 - accepted)
  })

  test('at the very end keeps the segment until the last summary is safe', () => {
    const { producer, store, open, stateDirectory } = createDrainFixture()
    producer.model()
    beginRequest(producer, 1)
    writeStep(producer, 1, 0, 2)
    const drain = open()
    drainAll(drain)
    drain.flush()
    // The request never ends: its summary is made when the producer is gone, with an empty ring.
    producer.close()
    store.failing = 'publish'
    // Prepared at the first turn: from then on nothing is pending but what waits to be published.
    expect(drain.turn().finished).toBe(false)
    expect(drain.turn().finished).toBe(false)
    expect(store.summaries()).toEqual([])
    store.failing = null
    expect(drain.flush()).toMatchObject({ status: 'success' })
    expect(drain.turn().finished).toBe(true)
    expect(store.summaries()).toMatchObject([
      {
        completeness: {
          state: 'unknown',
          reasons: expect.arrayContaining(['the producer ended before the request did']),
        },
      },
    ])
    expect(existsSync(checkpointPath(stateDirectory, drain.producer))).toBe(false)
  })
})
