import { expect, test } from 'vitest'
import { createViewCache } from '../../../exporter/views/cache.ts'
import { shown, tokensPerCell } from '../../../exporter/views/numbers.ts'
import { patternView } from '../../../exporter/views/pattern.ts'
import { openScope } from '../../../exporter/views/scope.ts'
import { row, summary, traceA } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

test('results are kept within a bound, and the least recently used go first', async () => {
  const cache = createViewCache(100)
  const computed: string[] = []
  const get = (key: string, bytes: number) =>
    cache.get(key, async () => {
      computed.push(key)
      return { value: key, bytes }
    })
  await get('a', 40)
  await get('b', 40)
  await get('a', 40)
  await get('c', 40)
  expect(cache.bytes()).toBe(80)
  await get('a', 40)
  await get('b', 40)
  expect(computed).toEqual(['a', 'b', 'c', 'b'])
})

test('two who ask at once wait for one computation, and a failure is tried again', async () => {
  const cache = createViewCache()
  let calls = 0
  const fail = async (): Promise<never> => {
    calls += 1
    throw new Error('away')
  }
  const both = [cache.get('k', fail), cache.get('k', fail)]
  expect((await Promise.allSettled(both)).map(({ status }) => status)).toEqual([
    'rejected',
    'rejected',
  ])
  expect(calls).toBe(1)
  expect(await cache.get('k', async () => ({ value: 7, bytes: 1 }))).toBe(7)
  expect(cache.bytes()).toBe(1)
})

test('numbers have five significant digits, and what is not finite is null', () => {
  const values = [1.234567, 123456.7, 0.000123456789, 0, 1, -0, Number.NaN, Infinity, null]
  expect(values.map(shown)).toEqual([1.2346, 123460, 0.00012346, 0, 1, 0, null, null, null])
  expect(shown(undefined)).toBeNull()
})

test('cells cover the least power of two of tokens that fits', () => {
  expect([1, 256, 257, 512, 513, 2000].map((tokens) => tokensPerCell(tokens, 256))).toEqual([
    1, 1, 2, 2, 4, 8,
  ])
})

test('a pattern that is too large for memory says how many queries to ask for', async () => {
  const fixture = openFixture(temporaryFolder())
  const keys = 5_000_000
  const data = new Uint8Array(4 * keys)
  const crc32c = (await import('../tensors/crc32c.ts')).crc32c(data)
  const facts = { hook: 'pattern', shape: [1, 1, keys], data, crc32c } as const
  fixture.flush(
    [0, 1, 2, 3].map((step) => row({ ...facts, step, tokenStart: step, tokenEnd: step + 1 })),
    [summary()],
  )
  const scope = openScope(fixture.catalog, { traceId: traceA, requestId: null, producer: null })
  const sources = { reader: fixture.reader(), cache: createViewCache(), headGroupBytesMax: 1 }
  const view = patternView(sources, scope, {
    ...{ layer: 0, head: 0, keys: null, size: 2 },
    queries: { start: 0, end: 4 },
  })
  await expect(view).rejects.toMatchObject({
    code: 'RING2_E_TOO_LARGE',
    action: 'Ask for at most 3 queries (queries=a:b).',
  })
})
