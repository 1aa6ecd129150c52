import { describe, expect, test } from 'vitest'
import { identify, parseModel, type RequestEnd, type StepRow } from '../../collector/bodies.ts'
import { deriveTraceId } from '../../collector/ids.ts'
import type {
  ModelInfo,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
} from '../../collector/records.ts'
import {
  createRegistry,
  type RegistryOptions,
  type RequestRegistry,
} from '../../collector/requests.ts'
import { createVerdicts, noBaselines } from '../../collector/verdicts.ts'
import { tinyModel } from '../helpers/producer.ts'
import { nonfiniteVerdicts } from '../helpers/verdicts.ts'

const producer: ProducerInfo = { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'h', pid: 7 }
const second = 1_000_000

function tiny(): ModelInfo {
  const parsed = parseModel(Buffer.from(JSON.stringify(tinyModel)))
  if (!parsed.ok) throw new Error(parsed.reason)
  return parsed.value
}

function open(change: Partial<RegistryOptions> = {}) {
  const ended: RequestSummary[] = []
  const registry = createRegistry({
    producer,
    expected: { wantsOf: () => () => true },
    verdicts: nonfiniteVerdicts(),
    requestsMax: 10,
    requestIdleMicros: 60 * second,
    onEnd: (summary) => void ended.push(summary),
    ...change,
  })
  return { registry, ended }
}

function info(key: number, startedAtMicros = 0): RequestInfo {
  return identify(key, `request-${key}`, null, {
    traceState: null,
    attributes: {},
    startedAtMicros,
  })
}

function row(key: number, tokenStart: number, tokenEnd: number): StepRow {
  return { requestKey: key, tokenStart, tokenEnd, phase: tokenStart === 0 ? 'prefill' : 'decode' }
}

function end(key: number, steps: number, tokens: number, outcome = 'ok'): RequestEnd {
  return { key, steps, tokens, promptTokens: 3, outcome }
}

/** The slices of both layers that one step of the tiny model gives. */
function addStep(registry: RequestRegistry, step: StepRow, atMicros: number): void {
  registry.step(step, atMicros)
  const request = registry.find(step.requestKey)
  if (request === undefined) throw new Error('a step makes its request known')
  for (const layer of [0, 1]) {
    registry.addSlice(request, {
      hook: 'resid_pre',
      layer,
      phase: step.phase,
      tokenStart: step.tokenStart,
      tokenEnd: step.tokenEnd,
      statistics: { l2Mean: layer + step.tokenStart, l2Max: layer + step.tokenStart },
      nan: 0,
      posInf: 0,
      negInf: 0,
      storedBytes: 16,
      capturedAtMicros: atMicros,
    })
  }
}

test('a request from REQUEST to REQUEST_END is summed up over its steps', () => {
  const { registry, ended } = open()
  registry.setModel(tiny())
  registry.begin(info(1, second))
  addStep(registry, row(1, 0, 3), 2 * second)
  addStep(registry, row(1, 3, 4), 3 * second)
  expect(registry.active()).toBe(1)
  registry.end(end(1, 2, 4), 4 * second)
  expect(registry.active()).toBe(0)
  expect(ended).toEqual([
    {
      request: info(1, second),
      model: tiny(),
      producer,
      endedAtMicros: 4 * second,
      tokens: 4,
      promptTokens: 3,
      steps: 2,
      phases: [
        {
          phase: 'prefill',
          startedAtMicros: 2 * second,
          endedAtMicros: 3 * second,
          tokenStart: 0,
          tokenEnd: 3,
          steps: 1,
        },
        {
          phase: 'decode',
          startedAtMicros: 3 * second,
          endedAtMicros: 4 * second,
          tokenStart: 3,
          tokenEnd: 4,
          steps: 1,
        },
      ],
      verdict: 'ok',
      findings: [],
      missingEvidence: [],
      baseline: 'default',
      completeness: { state: 'complete', expected: 4, seen: 4, reasons: [] },
      // Means are weighted by tokens: three of value 0 and one of value 3.
      layerSeries: { 'resid_pre.l2_mean': [0.75, 1.75], 'resid_pre.l2_max': [3, 4] },
      globals: {},
      // No rule reads those two.
      phaseStatistics: {
        prefill: { logitRows: 0, layerSeries: {}, globals: {} },
        decode: { logitRows: 0, layerSeries: {}, globals: {} },
      },
      nan: 0,
      posInf: 0,
      negInf: 0,
      tensorsStored: 4,
      bytesStored: 64,
    },
  ])
})

describe('records out of order', () => {
  test('a step without its REQUEST gets a name of its own and is never complete', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    addStep(registry, row(9, 0, 3), second)
    registry.end(end(9, 1, 3), 2 * second)
    expect(ended).toMatchObject([
      {
        request: {
          requestId: 'lost-00c0ffee00c0ffee-9',
          traceId: deriveTraceId('lost-00c0ffee00c0ffee-9'),
        },
        verdict: 'unknown',
        completeness: { state: 'unknown', reasons: ['its REQUEST record never came'] },
      },
    ])
  })

  test('a REQUEST that comes after its first step gives the request its name', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    addStep(registry, row(1, 0, 3), second)
    registry.begin(info(1))
    addStep(registry, row(1, 3, 4), 2 * second)
    registry.end(end(1, 2, 4), 3 * second)
    expect(ended).toMatchObject([{ request: { requestId: 'request-1' }, steps: 2, tokens: 4 }])
  })

  test('a MODEL that comes after the REQUEST counts from the first step', () => {
    const { registry, ended } = open()
    registry.begin(info(1))
    registry.setModel(tiny())
    addStep(registry, row(1, 0, 3), second)
    registry.end(end(1, 1, 3), 2 * second)
    expect(ended).toMatchObject([{ model: { name: 'tiny' }, completeness: { state: 'complete' } }])
  })

  test('without any MODEL nothing is complete', () => {
    const { registry, ended } = open()
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    registry.end(end(1, 1, 3), 2 * second)
    expect(ended).toMatchObject([
      {
        verdict: 'unknown',
        completeness: { state: 'unknown', reasons: ['the MODEL record never came'] },
      },
    ])
  })

  test('an end of a request that nobody knows is nothing', () => {
    const { registry, ended } = open()
    registry.end(end(5, 1, 3), second)
    expect(ended).toEqual([])
  })
})

describe('what did not come', () => {
  test('tokens between two steps make it unknown, even if the steps add up', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    addStep(registry, row(1, 7, 8), 2 * second)
    registry.end(end(1, 2, 8), 3 * second)
    expect(ended[0]?.completeness).toEqual({
      state: 'unknown',
      expected: 4,
      seen: 4,
      reasons: ['tokens 3 to 7 were never announced'],
    })
  })

  test('tokens before the first step are a prefix that was cached, and no gap', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 5, 8), second)
    registry.end(end(1, 1, 8), 2 * second)
    expect(ended[0]?.completeness.state).toBe('complete')
  })

  test('tokens at the end that the producer processed make it unknown', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    registry.end(end(1, 1, 9), 2 * second)
    expect(ended[0]?.completeness).toMatchObject({
      state: 'unknown',
      reasons: ['3 of 9 tokens were announced'],
    })
  })

  test('a whole step makes it incomplete, with the producer’s reason', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    registry.gap([{ reason: 'meta_full', records: 3, bytes: 0 }])
    registry.end(end(1, 2, 4), 2 * second)
    expect(ended[0]?.completeness).toMatchObject({ state: 'incomplete' })
    expect(ended[0]?.completeness.reasons).toContain('1 of 2 steps missing')
    expect(ended[0]?.completeness.reasons).toContain('the producer lost 3 records (meta_full)')
  })

  test('an outcome other than ok is a doubt', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    registry.end(end(1, 1, 3, 'error'), 2 * second)
    expect(ended[0]?.completeness).toMatchObject({
      state: 'unknown',
      reasons: ['the request ended with error'],
    })
  })
})

describe('requests that never end', () => {
  test('are given up when nothing came for too long, as of when they were last heard of', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1, second))
    registry.begin(info(2, second))
    addStep(registry, row(1, 0, 3), 10 * second)
    addStep(registry, row(2, 0, 3), 50 * second)
    registry.giveUp(70 * second, false)
    expect(ended).toEqual([])
    registry.giveUp(71 * second, false)
    expect(ended).toMatchObject([
      {
        request: { key: 1 },
        endedAtMicros: 10 * second,
        verdict: 'unknown',
        completeness: {
          state: 'unknown',
          reasons: [
            'given up: nothing came for too long',
            'the producer never said how many steps it ran',
          ],
        },
      },
    ])
    expect(registry.active()).toBe(1)
  })

  test('are given up when there are too many, the one without a step for longest first', () => {
    const { registry, ended } = open({ requestsMax: 3 })
    registry.setModel(tiny())
    for (const key of [1, 2, 3, 4]) {
      registry.begin(info(key))
      addStep(registry, row(key, 0, 3), key * second)
    }
    addStep(registry, row(1, 3, 4), 5 * second)
    registry.giveUp(6 * second, false)
    expect(registry.active()).toBe(3)
    expect(ended).toMatchObject([
      {
        request: { key: 2 },
        completeness: {
          state: 'unknown',
          reasons: expect.arrayContaining([expect.stringContaining('too many requests')]),
        },
      },
    ])
  })

  test('never pass twice the bound, not even before they are given up', () => {
    const { registry, ended } = open({ requestsMax: 3 })
    for (let key = 1; key <= 100; key++) registry.begin(info(key))
    expect(registry.active()).toBe(6)
    expect(ended).toHaveLength(94)
  })

  test('end with the producer, all of them', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    for (const key of [1, 2]) {
      registry.begin(info(key))
      addStep(registry, row(key, 0, 3), second)
    }
    registry.giveUp(2 * second, true)
    expect(registry.active()).toBe(0)
    expect(ended.map(({ completeness }) => completeness.state)).toEqual(['unknown', 'unknown'])
    expect(ended[0]?.completeness.reasons).toContain('the producer ended before the request did')
  })
})

describe('values that are no numbers', () => {
  const slice = {
    layer: 0,
    phase: 'prefill' as const,
    tokenStart: 0,
    tokenEnd: 1,
    statistics: {},
    storedBytes: null,
    capturedAtMicros: 1,
  }

  test('make the verdict nonfinite', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    addStep(registry, row(1, 0, 3), second)
    const request = registry.find(1)
    if (request === undefined) throw new Error('unknown')
    registry.addSlice(request, { ...slice, hook: 'resid_pre', nan: 2, posInf: 1, negInf: 1 })
    registry.end(end(1, 1, 3), 2 * second)
    expect(ended[0]).toMatchObject({ verdict: 'nonfinite', nan: 2, posInf: 1, negInf: 1 })
  })

  test('do not where they are what a mask writes', () => {
    const { registry, ended } = open()
    registry.setModel(tiny())
    registry.begin(info(1))
    addStep(registry, row(1, 0, 3), second)
    const request = registry.find(1)
    if (request === undefined) throw new Error('unknown')
    const masked = { ...slice, nan: 0, posInf: 0, negInf: 5 }
    registry.addSlice(request, { ...masked, hook: 'final_logits', layer: -1 })
    registry.addSlice(request, { ...masked, hook: 'attn_scores' })
    registry.end(end(1, 1, 3), 2 * second)
    expect(ended[0]).toMatchObject({ verdict: 'ok', negInf: 0 })
  })
})

test('a registry that went through a checkpoint goes on as if nothing had happened', () => {
  const straight = open()
  const before = open()
  const after = open()
  const first = [row(1, 0, 3), row(2, 0, 5)]
  const rest = [row(1, 3, 4), row(2, 5, 6), row(2, 6, 7)]
  const run = ({ registry }: typeof straight, rows: readonly StepRow[], from: number) => {
    for (const [index, one] of rows.entries()) addStep(registry, one, (from + index) * second)
  }
  const begin = ({ registry }: typeof straight) => {
    registry.setModel(tiny())
    registry.begin(info(1))
    registry.begin(info(2))
  }
  begin(straight)
  run(straight, first, 1)
  run(straight, rest, 3)
  begin(before)
  run(before, first, 1)
  after.registry.restore(JSON.parse(JSON.stringify(before.registry.store())))
  run(after, rest, 3)
  for (const { registry } of [straight, after]) {
    registry.end(end(1, 2, 4), 9 * second)
    registry.end(end(2, 3, 7), 9 * second)
  }
  expect(after.registry.model()).toEqual(tiny())
  expect(after.ended).toEqual(straight.ended)
  expect(after.ended.map(({ completeness }) => completeness.state)).toEqual([
    'complete',
    'complete',
  ])
})

test('a request that an older exporter measured in part is not known in full', () => {
  const before = open()
  before.registry.setModel(tiny())
  addStep(before.registry, row(1, 0, 3), second)
  const stored = JSON.parse(JSON.stringify(before.registry.store()))
  for (const request of stored.requests) delete request.statistics.phases
  const { registry, ended } = open()
  registry.restore(stored)
  addStep(registry, row(1, 3, 4), 2 * second)
  registry.end(end(1, 2, 4), 3 * second)
  expect(ended).toMatchObject([{ verdict: 'unknown', completeness: { state: 'unknown' } }])
})

test('a request restored without a model learns it from its next step', () => {
  const before = open()
  before.registry.begin(info(1))
  const { registry, ended } = open()
  registry.restore(JSON.parse(JSON.stringify(before.registry.store())))
  registry.setModel(tiny())
  addStep(registry, row(1, 0, 3), second)
  registry.end(end(1, 1, 3), 2 * second)
  expect(ended).toMatchObject([{ model: { name: 'tiny' }, completeness: { state: 'complete' } }])
})

test('a request id that comes again in a trace is another request, told apart by a number', () => {
  const { registry, ended } = open()
  for (const key of [1, 2]) {
    registry.begin({ ...info(1), key })
    registry.end(end(key, 0, 0), second)
  }
  expect(ended.map(({ request }) => request.requestId)).toEqual(['request-1', 'request-1~2'])
  expect(new Set(ended.map(({ request }) => request.spanId)).size).toBe(2)
})

test('a fault that begins after a long prompt is found, also across a checkpoint', () => {
  const verdicts = createVerdicts({ rules: ['collapsed'], statistics: ['all'], book: noBaselines })
  const name = 'resid_pre.layer_growth_mean'
  const before = open({ verdicts })
  const after = open({ verdicts })
  const model = { ...tiny(), layers: 3, hooks: { resid_pre: [0, 1, 2] } }
  const grow = ({ registry }: typeof before, step: StepRow, layerGrowthMean: number) => {
    registry.step(step, second)
    const request = registry.find(step.requestKey)
    if (request === undefined) throw new Error('a step makes its request known')
    const { phase, tokenStart, tokenEnd } = step
    const common = { hook: 'resid_pre', phase, tokenStart, tokenEnd, capturedAtMicros: second }
    const none = { nan: 0, posInf: 0, negInf: 0, storedBytes: null }
    for (const layer of model.hooks.resid_pre) {
      registry.addSlice(request, { ...common, ...none, layer, statistics: { layerGrowthMean } })
    }
  }
  before.registry.setModel(model)
  grow(before, row(1, 0, 97), 1)
  grow(before, row(1, 97, 98), 33)
  after.registry.restore(JSON.parse(JSON.stringify(before.registry.store())))
  for (let token = 98; token < 108; token++) grow(after, row(1, token, token + 1), 33)
  after.registry.end({ ...end(1, 12, 108), promptTokens: 97 }, 2 * second)
  const [summary] = after.ended
  expect(summary?.layerSeries[name]?.[2]).toBeLessThan(8)
  expect(summary?.findings).toMatchObject([{ statistic: name, value: 33, phase: 'decode' }])
  expect(summary?.verdict).toBe('collapsed')
})
