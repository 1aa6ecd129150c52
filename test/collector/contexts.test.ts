import { expect, test } from 'vitest'
import { identify } from '../../collector/bodies.ts'
import {
  type CallerContext,
  joinNames,
  overlaps,
  placeInside,
  skewMicros,
} from '../../collector/contexts.ts'
import { type ContextJoin, createContextJoin } from '../../collector/contexts-join.ts'
import { deriveSpanId, deriveTraceId } from '../../collector/ids.ts'
import { collectorLimits } from '../../collector/limits.ts'
import type { ProducerInfo, RequestInfo, RequestSummary } from '../../collector/records.ts'
import { summary } from '../exporter/tensors/rows.ts'

const startMicros = 1_772_600_767_000_000
const second = 1_000_000
const trace = 'c'.repeat(32)
const span = 'd'.repeat(16)
const waitMillis = 10_000

function info(requestId: string, key = 1, traceparent: string | null = null): RequestInfo {
  const rest = { traceState: null, attributes: {}, startedAtMicros: startMicros }
  return identify(key, requestId, traceparent, rest)
}

function producer(boot = '1'): ProducerInfo {
  return { segment: 'chat', boot, host: 'box', pid: 1 }
}

/** A request of one second. */
function ended(request: RequestInfo, boot = '1'): RequestSummary {
  const endedAtMicros = request.startedAtMicros + second
  return summary({ request, producer: producer(boot), endedAtMicros })
}

function context(requestId: string, changes: Partial<CallerContext> = {}): CallerContext {
  return {
    requestIds: [requestId],
    traceId: trace,
    spanId: span,
    traceState: null,
    startedAtMicros: startMicros - 1000,
    endedAtMicros: startMicros + second + 1000,
    ...changes,
  }
}

interface Fixture {
  readonly join: ContextJoin
  readonly ready: RequestSummary[]
  readonly moved: { now: RequestSummary; before: RequestInfo }[]
  pass(millis: number): void
}

function fixture(millis = waitMillis): Fixture {
  let clock = 0
  const ready: RequestSummary[] = []
  const moved: Fixture['moved'] = []
  const join = createContextJoin({
    waitMillis: millis,
    onReady: (one) => void ready.push(one),
    onMoved: (now, before) => void moved.push({ now, before }),
    now: () => clock,
  })
  return {
    join,
    ready,
    moved,
    pass(passed) {
      clock += passed
      join.turn()
    },
  }
}

test('an engine names a request by its external id, and its internal one has eight more digits', () => {
  expect(joinNames('chatcmpl-1-0a1b2c3d')).toEqual(['chatcmpl-1-0a1b2c3d', 'chatcmpl-1'])
  expect(joinNames('chatcmpl-1-0a1b2c3d~2')).toEqual([
    'chatcmpl-1-0a1b2c3d~2',
    'chatcmpl-1-0a1b2c3d',
    'chatcmpl-1',
  ])
  // Not eight hexadecimal digits: a UUID's last group, upper case, none at all.
  for (const id of ['a-123456789abc', 'a-0A1B2C3D', 'a-0a1b2c3', 'a']) {
    expect(joinNames(id)).toEqual([id])
  }
})

test('a request without context waits for the span that names it, and becomes its child', () => {
  const { join, ready, moved, pass } = fixture()
  const request = info('chatcmpl-1-0a1b2c3d')
  join.end(ended(request))
  pass(waitMillis - 1)
  expect(ready).toEqual([])
  expect(join.counts().waiting).toBe(1)
  join.add(context('chatcmpl-1', { traceState: 'vendor=1' }))
  const adopted = {
    ...request,
    traceId: trace,
    spanId: deriveSpanId(trace, request.requestId, 'request'),
    parentSpanId: span,
    traceState: 'vendor=1',
    traceOrigin: 'tap',
    storedTraceId: deriveTraceId(request.requestId),
    parentWindow: {
      startedAtMicros: startMicros - 1000,
      endedAtMicros: startMicros + second + 1000,
    },
  }
  expect(ready.map((one) => one.request)).toEqual([adopted])
  expect(moved).toEqual([{ now: ready[0], before: request }])
  pass(10 * waitMillis)
  expect(ready).toHaveLength(1)
  expect(join.counts()).toMatchObject({ requests: { tap: 1, derived: 0 }, received: 1, waiting: 0 })
})

test('without a span in time it goes on alone; a later one sends it again, linked', () => {
  const { join, ready, moved, pass } = fixture()
  const request = info('r-1')
  join.end(ended(request))
  pass(waitMillis)
  expect(ready.map((one) => one.request)).toEqual([request])
  pass(60_000)
  join.add(context('r-1'))
  expect(ready[1]?.request).toMatchObject({
    traceId: trace,
    parentSpanId: span,
    storedTraceId: request.traceId,
    earlierSpan: { traceId: request.traceId, spanId: request.spanId },
  })
  expect(moved).toHaveLength(1)
  expect(join.counts()).toMatchObject({ requests: { tap: 0, derived: 1 }, late: 1 })
  // Only once, whatever else names it.
  join.add(context('r-1', { spanId: 'e'.repeat(16) }))
  expect(ready).toHaveLength(2)
})

test('what is minutes late is forgotten, and so is a span whose times do not fit', () => {
  const { join, ready, pass } = fixture()
  join.end(ended(info('r-1')))
  join.end(ended(info('r-2', 2)))
  pass(waitMillis)
  const hourLater = { startedAtMicros: startMicros + 3600 * second }
  join.add(context('r-2', { ...hourLater, endedAtMicros: hourLater.startedAtMicros + second }))
  expect(ready).toHaveLength(2)
  pass(collectorLimits.contextLateMillis)
  join.add(context('r-1'))
  expect(ready).toHaveLength(2)
})

test('a span that came first gives the request its trace before anything is stored', () => {
  const { join, ready, moved } = fixture()
  join.add(context('r-1'))
  const begun = join.begin(info('r-1-00000000'), producer())
  expect(begun).toMatchObject({ traceId: trace, parentSpanId: span, traceOrigin: 'tap' })
  expect(begun.storedTraceId).toBeUndefined()
  // The same REQUEST record once more, as after a restart.
  expect(join.begin(info('r-1-00000000'), producer())).toEqual(begun)
  join.end(ended(begun))
  expect(ready.map((one) => one.request)).toEqual([begun])
  expect(moved).toEqual([])
})

test('a span that came while the request ran is found at its end', () => {
  const { join, ready, pass } = fixture()
  const request = join.begin(info('r-1'), producer())
  pass(500)
  // The clocks disagree by an hour; that it came meanwhile says enough.
  const apart = 3600 * second
  join.add(
    context('r-1', {
      startedAtMicros: startMicros - apart,
      endedAtMicros: startMicros - apart + 1,
    }),
  )
  pass(500)
  join.end(ended(request))
  expect(ready[0]?.request).toMatchObject({ traceId: trace, storedTraceId: request.traceId })
  expect(join.counts().skewed).toBe(1)
})

test('an id that is used again waits for its own span', () => {
  const { join, ready, pass } = fixture()
  const first = info('r-1')
  join.end(ended(first))
  join.add(context('r-1'))
  pass(1000)
  const again = join.begin(
    { ...info('r-1', 2), startedAtMicros: startMicros + 5 * second },
    producer(),
  )
  expect(again.traceOrigin).toBe('derived')
  join.end(ended({ ...again, requestId: 'r-1~2' }))
  expect(ready).toHaveLength(1)
  const own = { startedAtMicros: startMicros + 5 * second, endedAtMicros: startMicros + 7 * second }
  join.add(context('r-1', { ...own, traceId: 'e'.repeat(32) }))
  expect(ready[1]?.request.traceId).toBe('e'.repeat(32))
  // A process that starts anew with the same id does not get a span of long ago either.
  const later = { ...info('r-1'), startedAtMicros: startMicros + 100 * second }
  expect(join.begin(later, producer('2')).traceOrigin).toBe('derived')
})

test('of two requests of one id, a span takes the one that ran when it did', () => {
  const { join, ready } = fixture()
  const later = { ...info('r-1'), startedAtMicros: startMicros + 5 * second }
  join.end(ended(info('r-1'), 'run-1'))
  join.end(ended(later, 'run-2'))
  const own = { startedAtMicros: startMicros + 4 * second, endedAtMicros: startMicros + 7 * second }
  join.add(context('r-1', own))
  expect(ready.map((one) => one.producer.boot)).toEqual(['run-2'])
})

test('every rank of a request becomes a child of its span', () => {
  const { join, ready } = fixture()
  join.end(ended(info('r-1'), 'rank-0'))
  join.end(ended(info('r-1'), 'rank-1'))
  join.add(context('r-1'))
  expect(ready.map((one) => one.request.traceId)).toEqual([trace, trace])
  expect(join.counts().requests.tap).toBe(2)
})

test('a request of just the id that a span names comes before one that is longer', () => {
  const { join, ready } = fixture()
  join.end(ended(info('r-1-deadbeef')))
  join.end(ended(info('r-1', 2)))
  join.add(context('r-1'))
  expect(ready.map((one) => one.request.requestId)).toEqual(['r-1'])
})

test('a REQUEST record with context wins; the tap wins over the form of an id', () => {
  const { join, ready, moved } = fixture()
  const own = info('r-1', 1, `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`)
  const formed = info(`${'e'.repeat(32)}-${'f'.repeat(16)}`, 2)
  join.add(context('r-1'))
  join.add(context(formed.requestId))
  expect(join.begin(own, producer())).toEqual(own)
  join.end(ended(own))
  join.end(ended(formed))
  expect(ready.map(({ request }) => [request.traceId, request.traceOrigin])).toEqual([
    ['a'.repeat(32), 'request'],
    [trace, 'tap'],
  ])
  expect(moved.map(({ before }) => before.traceId)).toEqual(['e'.repeat(32)])
  // Without a span it does not wait: its id says where it belongs.
  join.end(ended(info(`${'e'.repeat(32)}-${'0'.repeat(15)}1`, 3)))
  expect(ready[2]?.request.traceOrigin).toBe('request_id')
})

test("the window of the parent is learnt from its span, whatever gave the request's context", () => {
  const { join, ready } = fixture()
  const own = info('r-1', 1, `00-${trace}-${span}-01`)
  join.add(context('r-1'))
  join.end(ended(own))
  expect(ready[0]?.request).toMatchObject({
    traceOrigin: 'request',
    parentWindow: { startedAtMicros: startMicros - 1000 },
  })
})

test('without a tap nothing waits', () => {
  const { join, ready } = fixture(0)
  join.end(ended(info('r-1')))
  expect(ready).toHaveLength(1)
})

test('at a stop everything that waits goes on', () => {
  const { join, ready } = fixture()
  join.end(ended(info('r-1')))
  join.end(ended(info('r-2', 2)))
  join.release()
  expect(ready).toHaveLength(2)
  expect(join.counts()).toMatchObject({ requests: { derived: 2 }, waiting: 0 })
})

test('beyond the bounds the oldest requests go on and the oldest contexts are forgotten', () => {
  const { join, ready } = fixture()
  for (let key = 1; key <= collectorLimits.contextWaitingMax + 1; key += 1) {
    join.end(ended(info(`r-${key}`, key)))
  }
  expect(ready.map((one) => one.request.requestId)).toEqual(['r-1'])
  expect(join.counts().waiting).toBe(collectorLimits.contextWaitingMax)
  for (let index = 0; index <= collectorLimits.contextsMax; index += 1) {
    join.add(context(`other-${index}`))
  }
  expect(join.begin(info('other-0', 9001), producer()).traceOrigin).toBe('derived')
  expect(join.begin(info('other-1', 9002), producer()).traceOrigin).toBe('tap')
})

test('of requests that went on without, only the last ones may still be joined', () => {
  const { join, ready, moved, pass } = fixture()
  const count = collectorLimits.contextLateMax + 1
  for (let key = 1; key <= count; key += 1) join.end(ended(info(`r-${key}`, key)))
  pass(waitMillis)
  expect(ready).toHaveLength(count)
  join.add(context('r-1'))
  expect(moved).toEqual([])
  join.add(context('r-2'))
  expect(moved.map(({ now }) => now.request.requestId)).toEqual(['r-2'])
  expect(join.counts().late).toBe(1)
})

test('clocks of one machine may differ a little: so far apart, span and request still overlap', () => {
  const window = { startedAtMicros: startMicros, endedAtMicros: startMicros + second }
  const { clockSkewMicros } = collectorLimits
  const from = (startedAtMicros: number) =>
    overlaps(context('r', { startedAtMicros, endedAtMicros: startedAtMicros + second }), window)
  const early = startMicros - second - clockSkewMicros
  const late = startMicros + second + clockSkewMicros
  expect([early - 1, early, late, late + 1].map(from)).toEqual([false, true, true, false])
})

test('a malformed traceparent is counted by its reason, and the next source is taken', () => {
  const { join, ready } = fixture(0)
  const bad: [string, string][] = [
    ['nonsense', 'traceparent_malformed'],
    [`ff-${trace}-${span}-01`, 'traceparent_version'],
    [`00-${'0'.repeat(32)}-${span}-01`, 'traceparent_zero_id'],
    [`00-${trace}-${'0'.repeat(16)}-01`, 'traceparent_zero_id'],
    [`00-${trace.toUpperCase()}-${span}-01`, 'traceparent_malformed'],
    [`00-${trace}-${span}-01-more`, 'traceparent_malformed'],
  ]
  for (const [index, [traceparent, fault]] of bad.entries()) {
    const request = info(`r-${index}`, index + 1, traceparent)
    expect(request).toMatchObject({ contextFault: fault, traceOrigin: 'derived' })
    join.end(ended(request))
  }
  expect(ready).toHaveLength(bad.length)
  expect(join.counts().faults).toEqual({
    traceparent_malformed: 3,
    traceparent_version: 1,
    traceparent_zero_id: 2,
  })
  expect(info(`${trace}-${span}`, 9, 'nonsense')).toMatchObject({
    contextFault: 'traceparent_malformed',
    traceOrigin: 'request_id',
    traceId: trace,
  })
})

test('times are put into the window of the parent, and moved when the clocks disagree', () => {
  const parent = { startedAtMicros: 1000, endedAtMicros: 2000 }
  const put = (startedAtMicros: number, endedAtMicros: number) => {
    const window = { startedAtMicros, endedAtMicros }
    const place = placeInside(window, parent)
    return [place(startedAtMicros), place(endedAtMicros), skewMicros(window, parent)]
  }
  expect(put(1100, 1900)).toEqual([1100, 1900, 0])
  expect(put(900, 1900)).toEqual([1000, 1900, -100])
  expect(put(1100, 2300)).toEqual([1100, 2000, 300])
  expect(put(500, 2300)).toEqual([1000, 2000, -500])
  // An hour ahead, an hour behind: as long as it was, from the parent's start.
  expect(put(9000, 9400)).toEqual([1000, 1400, 7400])
  expect(put(0, 400)).toEqual([1000, 1400, -1000])
  expect(put(9000, 19_000)).toEqual([1000, 2000, 17_000])
})
