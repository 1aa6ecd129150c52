import { describe, expect, test } from 'vitest'
import { identify, parseModel } from '../../collector/bodies.ts'
import { collectorLimits } from '../../collector/limits.ts'
import { createRankJoin } from '../../collector/rank-join.ts'
import type { ProducerInfo, RequestSummary, SliceStatistics } from '../../collector/records.ts'
import { createRegistry, type RequestRegistry } from '../../collector/requests.ts'
import { tinyModel } from '../helpers/producer.ts'
import { nonfiniteVerdicts } from '../helpers/verdicts.ts'

const second = 1_000_000

interface Rank {
  readonly tp: number
  readonly pp?: number
  readonly boot?: string
  readonly world?: object
  readonly hooks?: Record<string, number[]>
  readonly kvHeads?: number
}

function open() {
  const clock = { millis: 0 }
  const events: string[] = []
  const told: RequestSummary[] = []
  const verdicts = nonfiniteVerdicts()
  const onEvent = ({ message }: { message: string }): void => void events.push(message)
  const join = createRankJoin({ verdicts, onEvent, now: () => clock.millis })

  function registry(rank: Rank) {
    const { tp, pp = 0, world = { tp: 2 } } = rank
    const boot = rank.boot ?? `boot-${tp}-${pp}`
    const producer: ProducerInfo = { segment: `rank-${tp}-${pp}`, boot, host: 'h', pid: 7 }
    const made = createRegistry({
      producer,
      expected: { wantsOf: () => () => true },
      verdicts,
      requestsMax: 10,
      requestIdleMicros: 60 * second,
      ranks: join,
      onEnd: (summary) => void told.push(summary),
    })
    const hooks = rank.hooks ?? { pattern: [0] }
    const body = { ...tinyModel, ranks: { tp, pp }, world, hooks, kv_heads: rank.kvHeads ?? 4 }
    const model = parseModel(Buffer.from(JSON.stringify(body)))
    if (!model.ok) throw new Error(model.reason)
    made.setModel(model.value)
    return { registry: made, producer }
  }
  return { clock, events, told, join, registry }
}

function info(id = 'one', traceparent: string | null = null) {
  return identify(1, id, traceparent, { traceState: null, attributes: {}, startedAtMicros: second })
}

function step(registry: RequestRegistry, hook: string, values: SliceStatistics, layer = 0): void {
  registry.step({ requestKey: 1, tokenStart: 0, tokenEnd: 4, phase: 'prefill' }, 2 * second)
  add(registry, hook, values, layer)
}

function add(registry: RequestRegistry, hook: string, statistics: SliceStatistics, layer = 0) {
  const request = registry.find(1)
  if (request === undefined) throw new Error('the request goes on')
  registry.addSlice(request, {
    ...{ hook, layer, phase: 'prefill', tokenStart: 0, tokenEnd: 4, statistics },
    ...{ nan: 0, posInf: 0, negInf: 0, storedBytes: 8, capturedAtMicros: 2 * second },
  })
}

function end(registry: RequestRegistry, steps = 1): void {
  const ended = { key: 1, steps, tokens: 4, promptTokens: 4, outcome: 'ok' }
  registry.end(ended, 3 * second)
}

describe('the ranks of one request', () => {
  test('are told of once, when the last one has ended, with the statistics of all heads', () => {
    const { told, registry } = open()
    const [first, second] = [registry({ tp: 0 }), registry({ tp: 1 })]
    for (const [one, mean] of [
      [first, 1],
      [second, 3],
    ] as const) {
      one.registry.begin(info())
      step(one.registry, 'pattern', { entropyMean: mean, rowSumError: mean, entropyMin: mean })
    }
    end(second.registry)
    expect(told).toEqual([])
    expect(second.registry.unsettled()).toBe(1)
    end(first.registry)
    expect(told).toHaveLength(1)
    const [summary] = told
    expect(summary?.producer).toEqual(first.producer)
    expect(summary?.layerSeries).toEqual({
      'pattern.entropy_mean': [2],
      'pattern.entropy_min': [1],
      'pattern.row_sum_error': [3],
    })
    expect(summary?.completeness).toEqual({ state: 'complete', expected: 2, seen: 2, reasons: [] })
    expect(summary).toMatchObject({ steps: 1, tensorsStored: 2, bytesStored: 16, tokens: 4 })
    expect(summary?.parallel?.parts.map(({ ranks }) => ranks.tp)).toEqual([0, 1])
    expect(summary?.model.ranks).toBeUndefined()
  })

  test('of two stages have the layers of both, and the hooks of either', () => {
    const { told, registry } = open()
    const world = { pp: 2 }
    const first = registry({ tp: 0, pp: 0, world, hooks: { resid_pre: [0], token_ids: [-1] } })
    const last = registry({ tp: 0, pp: 1, world, hooks: { resid_pre: [1], final_ln: [-1] } })
    for (const [layer, one] of [first.registry, last.registry].entries()) {
      one.begin(info())
      step(one, 'resid_pre', { l2Mean: layer + 1 }, layer)
    }
    add(first.registry, 'token_ids', {}, -1)
    add(last.registry, 'final_ln', { l2Mean: 7 }, -1)
    end(first.registry)
    end(last.registry)
    const [summary] = told
    expect(summary?.layerSeries).toEqual({ 'resid_pre.l2_mean': [1, 2] })
    expect(summary?.globals).toEqual({ 'final_ln.l2_mean': 7 })
    expect(summary?.model.hooks).toEqual({ resid_pre: [0, 1], token_ids: [-1], final_ln: [-1] })
    expect(summary?.completeness).toMatchObject({ state: 'complete', expected: 4, seen: 4 })
  })

  test('have no norm of a vector that is cut in pieces, and its largest element', () => {
    const { told, registry } = open()
    for (const tp of [0, 1]) {
      const one = registry({ tp, hooks: { mlp_post: [0] } }).registry
      one.begin(info())
      step(one, 'mlp_post', { l2Mean: 3, l2Max: 4, absMax: tp + 1 })
      end(one)
    }
    expect(told[0]?.layerSeries).toEqual({ 'mlp_post.abs_max': [2] })
  })

  test('count a copy of key heads once', () => {
    const { told, registry } = open()
    for (const tp of [0, 1, 2, 3]) {
      const one = registry({ tp, world: { tp: 4 }, kvHeads: 2, hooks: { k: [0] } }).registry
      one.begin(info())
      // Ranks 0 and 1 hold one head, 2 and 3 the other.
      step(one, 'k', { l2Mean: tp < 2 ? 1 : 5, absMax: tp })
      end(one)
    }
    expect(told[0]?.layerSeries).toEqual({ 'k.l2_mean': [3], 'k.abs_max': [2] })
  })

  test('of which one never comes are told of as incomplete after a while', () => {
    const { told, clock, join, registry, events } = open()
    const only = registry({ tp: 0 })
    only.registry.begin(info())
    step(only.registry, 'pattern', { entropyMean: 1 })
    end(only.registry)
    join.turn()
    expect(told).toEqual([])
    clock.millis += collectorLimits.rankWaitMillis
    join.turn()
    expect(told[0]?.completeness).toMatchObject({
      state: 'incomplete',
      reasons: ['rank tp:1,pp:0 never came'],
    })
    // Half of the heads are not the whole.
    expect(told[0]?.layerSeries).toEqual({})
    join.flushed(only.producer)
    expect(only.registry.unsettled()).toBe(0)
    const late = registry({ tp: 1 })
    late.registry.begin(info())
    step(late.registry, 'pattern', { entropyMean: 1 })
    end(late.registry)
    expect(told).toHaveLength(1)
    expect(late.registry.unsettled()).toBe(0)
    expect(events).toEqual(['a rank ended a request after it had been told of without it'])
  })

  test('wait for one in which the request goes on, and say what a dead one lacks', () => {
    const { told, clock, join, registry } = open()
    const [first, dead] = [registry({ tp: 0 }), registry({ tp: 1 })]
    for (const one of [first, dead]) {
      one.registry.begin(info())
      step(one.registry, 'pattern', { entropyMean: 1 })
    }
    step(first.registry, 'pattern', { entropyMean: 1 })
    end(first.registry, 2)
    clock.millis += 2 * collectorLimits.rankWaitMillis
    join.turn()
    expect(told).toEqual([])
    dead.registry.giveUp(4 * second, true)
    expect(told[0]?.completeness.state).toBe('incomplete')
    expect(told[0]?.completeness.reasons).toEqual([
      'rank tp:1,pp:0: 1 of 2 steps missing',
      'rank tp:1,pp:0: the producer ended before the request did',
      'rank tp:1,pp:0: the producer never said how many steps it ran',
    ])
  })

  test('that claim one place are kept apart', () => {
    const { told, events, registry } = open()
    const same = [registry({ tp: 0 }), registry({ tp: 0, boot: 'another' })]
    for (const one of same) {
      one.registry.begin(info())
      step(one.registry, 'pattern', { entropyMean: 1 })
      end(one.registry)
    }
    expect(told.map(({ producer }) => producer.boot)).toEqual(['another'])
    expect(told[0]?.completeness.state).toBe('incomplete')
    expect(events).toEqual(['two producers claim one rank of a request: they are kept apart'])
  })

  test('of worlds of different sizes are kept apart', () => {
    const { told, events, join, registry } = open()
    for (const [tp, size] of [
      [0, 2],
      [1, 4],
    ] as const) {
      const one = registry({ tp, world: { tp: size } }).registry
      one.begin(info())
      step(one, 'pattern', { entropyMean: 1 })
      end(one)
    }
    join.release()
    expect(told.map(({ completeness }) => completeness.state)).toEqual(['incomplete', 'incomplete'])
    expect(events).toHaveLength(1)
  })

  test('have one trace, also when its context came between two of them', () => {
    const { told, registry } = open()
    const first = registry({ tp: 0 }).registry
    const second = registry({ tp: 1 }).registry
    first.begin(info())
    second.begin({ ...info(), traceId: 'f'.repeat(32), traceOrigin: 'tap' })
    expect(second.find(1)?.info.traceId).toBe(info().traceId)
    for (const one of [first, second]) {
      step(one, 'pattern', { entropyMean: 1 })
      end(one)
    }
    expect(told).toHaveLength(1)
  })
})

describe('a restarted exporter', () => {
  test('joins a part of its checkpoint with one that ends later', () => {
    const before = open()
    const early = before.registry({ tp: 1 })
    early.registry.begin(info())
    step(early.registry, 'pattern', { entropyMean: 1 })
    end(early.registry)
    const stored = JSON.parse(JSON.stringify(early.registry.store()))
    const { told, registry } = open()
    registry({ tp: 1 }).registry.restore(stored)
    const first = registry({ tp: 0 }).registry
    first.begin(info())
    step(first, 'pattern', { entropyMean: 3 })
    end(first)
    expect(told).toHaveLength(1)
    expect(told[0]?.layerSeries).toEqual({ 'pattern.entropy_mean': [2] })
  })

  /** Both ranks have ended; what each checkpoint holds at each point of the way. */
  function ended() {
    const all = open()
    const [first, last] = [all.registry({ tp: 0 }), all.registry({ tp: 1 })]
    for (const one of [first, last]) {
      one.registry.begin(info())
      step(one.registry, 'pattern', { entropyMean: 1 })
    }
    const store = (one: { registry: RequestRegistry }) =>
      JSON.parse(JSON.stringify(one.registry.store()))
    end(first.registry)
    const held = store(first)
    end(last.registry)
    return { ...all, first, last, store, held }
  }

  test('tells of a request again whose summary was not safe', () => {
    const { held, last, store } = ended()
    const again = open()
    again.registry({ tp: 0 }).registry.restore(held)
    again.registry({ tp: 1 }).registry.restore(store(last))
    expect(again.told).toHaveLength(1)
  })

  test.each([
    ['teller', 0],
    ['other', 1],
  ])('does not tell again where the %s was stored last', (_, order) => {
    const { first, last, store } = ended()
    // The teller's flush had been written; the other one's, without its part, had not.
    const checkpoints = [store(first), store(last)] as const
    const again = open()
    const restored = [again.registry({ tp: 0 }), again.registry({ tp: 1 })] as const
    for (const index of order === 0 ? [0, 1] : [1, 0]) {
      restored[index as 0 | 1].registry.restore(checkpoints[index as 0 | 1])
    }
    again.clock.millis += collectorLimits.rankWaitMillis
    again.join.turn()
    expect(again.told).toEqual([])
    again.join.flushed(restored[1].producer)
    again.join.turn()
    expect(restored.map(({ registry }) => registry.unsettled())).toEqual([0, 0])
  })

  test('keeps no segment once its parts are stored elsewhere', () => {
    const { first, last, join } = ended()
    expect([first, last].map(({ registry }) => registry.unsettled())).toEqual([1, 1])
    join.flushed(first.producer)
    expect(last.registry.changed()).toBe(true)
    expect([first, last].map(({ registry }) => registry.unsettled())).toEqual([1, 0])
    last.registry.saved()
    join.flushed(last.producer)
    expect([first, last].map(({ registry }) => registry.unsettled())).toEqual([0, 0])
  })

  test('tells of a request whose teller was given back before that was safe', () => {
    const { told, first, held, join, registry } = ended()
    expect(told).toHaveLength(1)
    join.withdraw(first.producer)
    registry({ tp: 0 }).registry.restore(held)
    expect(told).toHaveLength(2)
    expect(told[1]?.completeness.state).toBe('complete')
  })
})
