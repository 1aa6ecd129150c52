import { expect, test } from 'vitest'
import type { CallerContext } from '../../collector/contexts.ts'
import { createContextTable } from '../../collector/contexts-table.ts'
import { collectorLimits } from '../../collector/limits.ts'

const { contextsMax, contextsPerIdMax, contextBytesMax } = collectorLimits

function context(...requestIds: string[]): CallerContext {
  return {
    requestIds,
    traceId: 'c'.repeat(32),
    spanId: 'd'.repeat(16),
    traceState: null,
    startedAtMicros: 1,
    endedAtMicros: 2,
  }
}

test('of one id only the newest contexts are kept, in the order in which they came', () => {
  const table = createContextTable()
  for (let millis = 1; millis <= contextsPerIdMax + 3; millis += 1) table.add(context('r'), millis)
  expect(table.named('r').map(({ atMillis }) => atMillis)).toEqual([4, 5, 6, 7])
  const { bytes } = table
  for (let millis = 8; millis < 1000; millis += 1) table.add(context('r'), millis)
  expect(table.bytes).toBe(bytes)
})

test('beyond the bound on ids the one goes that was not named for longest', () => {
  const table = createContextTable()
  for (let index = 0; index < contextsMax; index += 1) table.add(context(`r-${index}`), index)
  table.add(context('r-0'), contextsMax)
  table.add(context('more'), contextsMax)
  expect(table.named('r-1')).toEqual([])
  expect(table.named('r-0')).toHaveLength(2)
  expect(table.named('r-2')).toHaveLength(1)
})

test('the bytes that are kept stay within their bound, however long ids and states are', () => {
  const table = createContextTable()
  const state = 's'.repeat(collectorLimits.traceStateCharactersMax)
  const name = (index: number, kind: string) =>
    `${kind}-${index}-`.padEnd(collectorLimits.attributeCharactersMax, 'x')
  const names = (index: number) => [name(index, 'a'), name(index, 'b'), name(index, 'c')]
  const count =
    3 * Math.ceil(contextBytesMax / 3 / (3 * 2 * collectorLimits.attributeCharactersMax))
  for (let index = 0; index < count; index += 1) {
    table.add({ ...context(...names(index)), traceState: state }, index)
    expect(table.bytes).toBeLessThanOrEqual(contextBytesMax)
  }
  expect(table.bytes).toBeGreaterThan(0.9 * contextBytesMax)
  expect(table.named(name(0, 'a'))).toEqual([])
  expect(table.named(name(count - 1, 'c'))).toHaveLength(1)
})

test('what is old is forgotten, and its bytes with it', () => {
  const table = createContextTable()
  table.add(context('r-1', 'r-2'), 10)
  table.add(context('r-2'), 20)
  table.forgetUntil(10)
  expect(table.named('r-1')).toEqual([])
  expect(table.named('r-2')).toHaveLength(2)
  table.forgetUntil(20)
  expect(table.named('r-2')).toEqual([])
  expect(table.bytes).toBe(0)
})
