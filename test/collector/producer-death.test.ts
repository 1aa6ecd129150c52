/** A producer that is killed in the middle of a write. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openProducer } from '../helpers/producer.ts'
import { writeRequest } from '../helpers/requests.ts'
import { createDrainFixture, drainAll, placeOf } from './drain-fixture.ts'

const child = join(import.meta.dirname, '../helpers/producer.child.ts')

/** Starts the producer and returns when its claim is open; `kill` returns when it is gone. */
async function startChild(directory: string, name: string) {
  const started = spawn(process.execPath, [child, directory, name], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void started.kill('SIGKILL'))
  const [text] = await once(started.stdout, 'data')
  expect(String(text)).toBe('claimed\n')
  return {
    path: join(directory, `ring2.${name}`),
    async kill() {
      const gone = once(started, 'exit')
      started.kill('SIGKILL')
      await gone
    },
  }
}

test('loses the claimed record alone, counted, and its segment is removed', async () => {
  const { directory, store, ended, open } = createDrainFixture()
  const { path, kill } = await startChild(directory, 'killed')
  const drain = open({ path })
  drainAll(drain)
  drain.flush()
  // The live producer's open claim is waited for, and nothing behind it is taken out of order.
  expect(store.rows()).toHaveLength(2)
  expect(drain.turn()).toEqual({ slices: 0, finished: false, last: null })
  await kill()
  await expect.poll(() => drain.info().producerAlive).toBe(false)
  // Whether the producer lives is asked for every 100 ms.
  await expect.poll(() => drain.turn().finished).toBe(true)
  expect(store.rows().map(placeOf)).toEqual([
    'request-1 resid_pre.0 step 1000 [0,3)',
    'request-1 resid_pre.1 step 1000 [0,3)',
    'request-1 resid_pre.1 step 1001 [3,4)',
  ])
  expect(existsSync(path)).toBe(false)
  expect(ended).toMatchObject([
    {
      verdict: 'unknown',
      completeness: {
        state: 'incomplete',
        expected: 4,
        seen: 3,
        reasons: expect.arrayContaining([
          'resid_pre: 1 of 4 records missing',
          'the producer ended before the request did',
        ]),
      },
    },
  ])
})

test('has its loss in the last counters, even when one turn does everything', async () => {
  const { directory, open } = createDrainFixture()
  const { path, kill } = await startChild(directory, 'at-once')
  await kill()
  const drain = open({ path })
  expect(drain.turn()).toMatchObject({
    finished: true,
    last: {
      metaUsed: 0,
      payloadUsed: 0,
      losses: [{ reason: 'producer_died', records: 1, bytes: 16 }],
    },
  })
})

test('counts what it lost with its reason', async () => {
  const { directory, store, open } = createDrainFixture()
  const { path, kill } = await startChild(directory, 'counted')
  await kill()
  const drain = open({ path })
  store.failing = 'prepare'
  await expect
    .poll(() => {
      drain.turn()
      return drain.info().losses
    })
    .toEqual([{ reason: 'producer_died', records: 1, bytes: 16 }])
  store.failing = null
  expect(drain.flush()).toMatchObject({ status: 'success' })
  expect(drain.turn()).toMatchObject({ finished: true })
})

test('and a new one of the same name does not get into the way of what the old one left', async () => {
  const { directory, store, open } = createDrainFixture()
  const { path, kill } = await startChild(directory, 'again')
  const first = open({ path })
  drainAll(first)
  first.flush()
  first.close()
  await kill()
  const producer = openProducer({ directory, name: 'again' })
  onTestFinished(() => producer.close())
  producer.model()
  writeRequest(producer, 2, 2, 1)
  const aside = `${path}~${first.producer.boot}`
  const old = open({ path: aside })
  expect(old.producer).toEqual(first.producer)
  await expect.poll(() => old.turn().finished).toBe(true)
  expect(existsSync(aside)).toBe(false)
  expect(existsSync(path)).toBe(true)
  const next = open({ path })
  drainAll(next)
  next.flush()
  expect(store.rows().map(placeOf)).toEqual([
    'request-1 resid_pre.0 step 1000 [0,3)',
    'request-1 resid_pre.1 step 1000 [0,3)',
    'request-1 resid_pre.1 step 1001 [3,4)',
    'request-2 resid_pre.0 step 2000 [0,2)',
    'request-2 resid_pre.1 step 2000 [0,2)',
  ])
})
