import { existsSync, renameSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { beginRequest, endRequest, writeRequest, writeStep } from '../helpers/requests.ts'
import { createDrainFixture, drainAll, placeOf } from './drain-fixture.ts'

describe('a segment', () => {
  test('whose producer has closed is drained to the end, stored and removed', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 3, 2)
    producer.close()
    const drain = open()
    expect(drain.turn()).toMatchObject({ finished: true })
    expect(store.rows()).toHaveLength(4)
    expect(existsSync(producer.path)).toBe(false)
  })

  test('that is held by one exporter is refused to a second, and can be had afterwards', () => {
    const { producer, open } = createDrainFixture()
    producer.model()
    const first = open()
    expect(() => open()).toThrow(expect.objectContaining({ code: 'RING2_E_BUSY' }))
    first.close()
    const second = open()
    expect(second.producer.boot).toBe(first.producer.boot)
  })

  test('that was moved aside goes on from the checkpoint of its first name', () => {
    const { producer, store, open } = createDrainFixture()
    producer.model()
    writeRequest(producer, 1, 3, 2)
    beginRequest(producer, 2)
    const drain = open()
    drainAll(drain)
    drain.flush()
    writeStep(producer, 2, 0, 2)
    endRequest(producer, 2, 2, 1)
    drain.close()
    const aside = `${producer.path}~${drain.producer.boot}`
    renameSync(producer.path, aside)
    const next = open({ path: aside })
    expect(next.producer).toEqual(drain.producer)
    drainAll(next)
    next.flush()
    expect(store.rows().map(placeOf)).toHaveLength(6)
    expect(store.summaries().map(({ completeness }) => completeness.state)).toEqual([
      'complete',
      'complete',
    ])
  })
})
