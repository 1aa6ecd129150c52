/** A large view leaves the process able to hear others. */
import { expect, test } from 'vitest'
import { createViews } from '../../../exporter/views/views.ts'
import { largeChat, largeNorm, largeTrace, storeLarge } from '../../explorer/large-store.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** How often the event loop came round while the work went on. */
async function turnsDuring<T>(work: () => Promise<T>): Promise<{ value: T; turns: number }> {
  let turns = 0
  let done = false
  const turn = () => {
    if (done) return
    turns += 1
    setImmediate(turn)
  }
  setImmediate(turn)
  const value = await work()
  done = true
  return { value, turns }
}

test('the event loop is heard at every layer of a view of norms, and in a mean over heads', async () => {
  const store = openFixture(temporaryFolder())
  storeLarge(store)
  const views = createViews({ catalog: store.catalog, reader: store.reader() })
  const scope = { traceId: largeTrace, requestId: null, producer: null }
  const query = { hook: 'resid_pre', tokens: null, columns: 1024 }
  const { value, turns } = await turnsDuring(() => views.norms(scope, query).compute())
  expect(turns).toBeGreaterThanOrEqual(largeChat.layers)
  expect(value.rows).toHaveLength(largeChat.layers)
  expect(value.rows[3]?.max[0]).toBeCloseTo(Math.max(largeNorm(3, 0), largeNorm(3, 1)), 1)
  const whole = { layer: 0, head: 'mean', queries: null, keys: null, size: 512 } as const
  const pattern = await turnsDuring(() => views.pattern(scope, whole).compute())
  // Reading, checking, adding and cutting are each done elsewhere.
  expect(pattern.turns).toBeGreaterThanOrEqual(4)
  expect(pattern.value.sink.first_key).toBeCloseTo(0.5, 3)
})
