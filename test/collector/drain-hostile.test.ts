/** Segments that lie: whatever they hold costs a count and a log line, and the drain goes on. */
import { describe, expect, test } from 'vitest'
import { constants } from '../../collector/layout.gen.ts'
import { collectorLimits } from '../../collector/limits.ts'
import { descriptorOffset, float32, poke, word64 } from '../helpers/producer.ts'
import {
  beginRequest,
  endRequest,
  stepValues,
  writeRequest,
  writeStep,
} from '../helpers/requests.ts'
import { createDrainFixture, drainAll, placeOf } from './drain-fixture.ts'

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

describe('a malformed body', () => {
  test.each<[string, number, Uint8Array]>([
    ['MODEL', constants.kindModel, json({ layers: 2 })],
    ['MODEL', constants.kindModel, json({ name: 'm', hooks: { q: 1 } })],
    ['REQUEST', constants.kindRequest, Buffer.from('{"key": 1')],
    ['REQUEST', constants.kindRequest, json({ key: 0, request_id: 'r' })],
    ['REQUEST_END', constants.kindRequestEnd, Buffer.from([0xff, 0xfe])],
    ['REQUEST_END', constants.kindRequestEnd, json('end')],
  ])('of a %s (kind %i) is skipped aloud, and what follows is stored', (name, kind, bytes) => {
    const { producer, store, events, open } = createDrainFixture()
    producer.model()
    producer.bytes(kind, bytes)
    writeRequest(producer, 1, 2, 1)
    const drain = open()
    drainAll(drain)
    drain.flush()
    expect(events).toContainEqual({
      level: 'warn',
      message: `skipped a malformed ${name} record`,
      facts: { segment: 'test', reason: expect.any(String) },
    })
    expect(store.rows()).toHaveLength(2)
    expect(store.summaries()[0]?.completeness.state).toBe('complete')
  })
})

describe('a number that no number holds', () => {
  test('as request key neither stops the drain nor harms another request', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    const rows = [
      { key: 2n ** 64n - 1n, start: 0, end: 2 },
      { key: 2n ** 63n, start: 0, end: 2 },
    ]
    producer.step({ step: 1, columns: 2, rows })
    producer.tensor(
      { hook: 'resid_pre', layer: 0, step: 1, dims: [2, 2, 4] },
      float32(Array(16).fill(1)),
    )
    writeRequest(producer, 1, 2, 1)
    const drain = open()
    drainAll(drain)
    expect(drain.flush()).toMatchObject({ status: 'success' })
    const own = store.rows().filter((row) => row.request.key === 1)
    expect(own.map(placeOf)).toEqual([
      'request-1 resid_pre.0 step 1000 [0,2)',
      'request-1 resid_pre.1 step 1000 [0,2)',
    ])
  })

  test('as step number is drained', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 2, 1)
    for (const position of [2, 3, 4]) {
      poke(producer.path, descriptorOffset(producer.path, position) + 40, word64(2n ** 62n))
    }
    const drain = open()
    drainAll(drain)
    expect(drain.flush()).toMatchObject({ status: 'success' })
    // The STEP body still says 1000, so nobody knows whose these tensors are.
    expect(drain.info().losses).toEqual([{ reason: 'unattributed', records: 2, bytes: 64 }])
    expect(store.summaries()[0]?.completeness.state).toBe('incomplete')
  })

  test('as counter of the header is shown, while the segment is drained', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    const drain = open()
    writeRequest(producer, 1, 2, 1)
    poke(producer.path, 336, word64(2n ** 63n))
    poke(producer.path, 344, word64(2n ** 64n - 1n))
    drainAll(drain)
    drain.flush()
    expect(drain.info()).toMatchObject({
      committedRecords: Number.MAX_SAFE_INTEGER,
      committedBytes: Number.MAX_SAFE_INTEGER,
    })
    expect(store.rows()).toHaveLength(2)
  })
})

describe('a corrupt descriptor', () => {
  // Offsets of ring2_descriptor: kind 8, dtype 9, ndim 10, hook 12, layer 14, dims 48.
  test.each<[string, number, Uint8Array]>([
    ['an unknown kind', 8, Buffer.from([200])],
    ['an unknown dtype', 9, Buffer.from([77])],
    ['no axes', 10, Buffer.from([0])],
    ['too many axes', 10, Buffer.from([9])],
    ['an unknown hook', 12, Buffer.from([31, 0])],
    ['a layer out of range', 14, Buffer.from([0xff, 0x7f])],
    ['a payload beyond the ring', 16, word64(2n ** 62n)],
    ['a payload of another size', 24, word64(2n ** 40n)],
    ['a shape that does not fit its bytes', 48, Buffer.from([0xff, 0xff, 0xff, 0xff])],
  ])('with %s is skipped and counted, and the records around it are stored', (_, field, bytes) => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 2, 1)
    writeRequest(producer, 2, 2, 1)
    // Position 3 is the first tensor of request 1.
    poke(producer.path, descriptorOffset(producer.path, 3) + field, bytes)
    const drain = open()
    drainAll(drain)
    expect(drain.flush()).toMatchObject({ status: 'success' })
    const corrupt = drain.info().losses.find(({ reason }) => reason === 'corrupt')
    expect(corrupt?.records).toBe(1)
    expect(store.rows().map(placeOf)).toEqual([
      'request-1 resid_pre.1 step 1000 [0,2)',
      'request-2 resid_pre.0 step 2000 [0,2)',
      'request-2 resid_pre.1 step 2000 [0,2)',
    ])
    for (const row of store.rows()) {
      const values = stepValues(row.request.key, row.layer, 0, 2)
      expect(row.data).toEqual(Buffer.from(float32(values)))
    }
    expect(store.summaries().map(({ completeness }) => completeness.state)).toEqual([
      'incomplete',
      'complete',
    ])
  })
})

test('a header whose head runs away is an error with a code, not a read beyond the ring', () => {
  const { producer, open } = createDrainFixture()
  producer.model()
  const drain = open()
  drainAll(drain)
  poke(producer.path, 256, word64(2n ** 40n))
  expect(() => drain.turn()).toThrow(expect.objectContaining({ code: 'RING2_E_NOT_A_SEGMENT' }))
})

test('steps of very many requests leave the registry within its bound', () => {
  const { producer, ended, open } = createDrainFixture({ metaSlots: 256 })
  producer.model()
  const drain = open({ requestsMax: 10 })
  for (let step = 0; step < 20; step++) {
    const rows = Array.from({ length: 50 }, (_, index) => ({
      key: step * 50 + index + 1,
      start: 0,
      end: 1,
      index,
    }))
    producer.step({ step, columns: 1, rows })
  }
  drainAll(drain)
  expect(drain.activeRequests()).toBe(10)
  expect(ended).toHaveLength(990)
  expect(new Set(ended.map(({ request }) => request.requestId)).size).toBe(990)
  for (const { completeness } of ended) expect(completeness.state).not.toBe('complete')
})

test('more reasons than the bound are not kept', () => {
  const { producer, ended, open } = createDrainFixture()
  producer.model()
  beginRequest(producer, 1)
  for (let step = 0; step < 50; step++) writeStep(producer, 1, step * 3, 1)
  endRequest(producer, 1, 1, 50)
  drainAll(open())
  expect(ended[0]?.completeness.reasons.length).toBeLessThanOrEqual(collectorLimits.reasonsMax)
})
