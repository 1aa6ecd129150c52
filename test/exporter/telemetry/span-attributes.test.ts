import { describe, expect, it } from 'vitest'
import { statistics } from '../../../collector/layout.gen.ts'
import type { Finding } from '../../../collector/records.ts'
import {
  incompleteAttributes,
  requestAttributes,
} from '../../../exporter/telemetry/span-attributes.ts'
import {
  spanAttributeHelp,
  spanAttributes,
  statisticOrder,
} from '../../../exporter/telemetry/span-registry.ts'
import { requestSummary } from './fixtures.ts'

const URL = 'http://127.0.0.1:9464/v1/traces/x'

const looping: Finding = {
  verdict: 'looping',
  statistic: 'token_ids.loop_period',
  value: 7,
  bound: 0,
  direction: 'above',
  layer: null,
}

describe('requestAttributes', () => {
  it('gives identity, verdict, completeness, tokens and the link to the tensors', () => {
    expect(requestAttributes(requestSummary(), URL)).toMatchObject({
      'gen_ai.request.model': 'SmolLM2-135M-Instruct',
      'ring2.request.id': 'chat-1',
      'ring2.verdict': 'ok',
      'ring2.anomaly': false,
      'ring2.completeness': 'complete',
      'ring2.records.expected': 20,
      'ring2.records.seen': 20,
      'ring2.tokens.total': 12,
      'ring2.tokens.prompt': 8,
      'ring2.tensors.url': URL,
      'ring2.tensors.size': 40_960,
      'ring2.final_logits.entropy_mean': 2.25,
      route: '/chat',
    })
  })

  it('marks a request that broke any rule as an anomaly, and none that is only unknown', () => {
    const broken = requestSummary({ verdict: 'looping', findings: [looping], nan: 3 })
    const attributes = requestAttributes(broken, URL)
    expect(attributes['ring2.anomaly']).toBe(true)
    expect(attributes['ring2.nonfinite.nan']).toBe(3)
    const unknown = requestSummary({ verdict: 'unknown', missingEvidence: ['too short'] })
    expect(requestAttributes(unknown, URL)['ring2.anomaly']).toBe(false)
  })

  it('says by which bounds it was judged and what was missing', () => {
    const missingEvidence = Array.from({ length: 40 }, (_, index) => `reason ${index}`)
    const changes = { verdict: 'unknown' as const, baseline: 'calibrated' as const }
    const attributes = requestAttributes(requestSummary({ ...changes, missingEvidence }), URL)
    expect(attributes['ring2.verdict.baseline']).toBe('calibrated')
    expect(attributes['ring2.verdict.missing_evidence']).toHaveLength(33)
    const whole = requestAttributes(requestSummary(), URL)
    expect(whole).not.toHaveProperty('ring2.verdict.missing_evidence')
  })

  it('leaves layers without a value out, and names the layers that are there', () => {
    const layerSeries = {
      'resid_pre.l2_mean': [1, null, 3, 4],
      'resid_pre.l2_max': [1, null, Number.NaN, 4],
      'pattern.sink_score': [null, null, null, null],
      'q.l2_mean': [0, 1, 2, 3],
    }
    const attributes = requestAttributes(requestSummary({ layerSeries }), URL)
    expect(attributes['ring2.resid_pre.layers']).toEqual([0, 2, 3])
    expect(attributes['ring2.resid_pre.l2_mean']).toEqual([1, 3, 4])
    expect(attributes['ring2.resid_pre.l2_max']).toEqual([1, 4])
    expect(attributes['ring2.resid_pre.l2_max.layers']).toEqual([0, 3])
    expect(attributes).not.toHaveProperty('ring2.resid_pre.l2_mean.layers')
    expect(attributes['ring2.q.layers']).toEqual([0, 1, 2, 3])
    expect(Object.keys(attributes).some((name) => name.startsWith('ring2.pattern'))).toBe(false)
  })

  it('leaves a global statistic without a finite value out', () => {
    const globals = { 'final_logits.entropy_mean': Number.NaN, 'final_logits.l2_mean': 1 }
    const attributes = requestAttributes(requestSummary({ globals }), URL)
    expect(attributes).not.toHaveProperty('ring2.final_logits.entropy_mean')
    expect(attributes['ring2.final_logits.l2_mean']).toBe(1)
  })

  it('never makes more than 128 attributes, and keeps the most telling statistics whole', () => {
    const hooks = Array.from({ length: 16 }, (_, index) => `hook_${index}`)
    const names = [...statistics.values()].reverse()
    const layerSeries = Object.fromEntries(
      hooks.flatMap((hook) => names.map((name) => [`${hook}.${name}`, [1, null, 2]])),
    )
    const attributes = requestAttributes(requestSummary({ layerSeries }), URL)
    expect(Object.keys(attributes).length).toBeLessThanOrEqual(128)
    expect(Object.keys(attributes).length).toBeGreaterThan(125)
    for (const hook of hooks) {
      expect(attributes[`ring2.${hook}.layers`]).toEqual([0, 2])
      expect(attributes[`ring2.${hook}.${statisticOrder[0]}`]).toEqual([1, 2])
    }
    expect(attributes).not.toHaveProperty('ring2.hook_0.rms_max')
  })

  it("never lets the caller's attributes replace ours, and cuts long texts", () => {
    const own = { 'ring2.verdict': 'great', text: 'x'.repeat(10_000), bad: Number.NaN, n: 1 }
    const attributes = requestAttributes(requestSummary({}, { attributes: own }), URL)
    expect(attributes['ring2.verdict']).toBe('ok')
    expect(String(attributes.text).length).toBe(4097)
    expect(attributes.n).toBe(1)
    expect(attributes).not.toHaveProperty('bad')
  })
})

describe('incompleteAttributes', () => {
  it('lists the reasons, and says how many more there are', () => {
    const reasons = Array.from(
      { length: 40 },
      (_, index) => `hook ${index}: 1 of 2 records missing`,
    )
    const completeness = { state: 'incomplete' as const, expected: 80, seen: 40, reasons }
    const attributes = incompleteAttributes(requestSummary({ completeness }))
    expect(attributes['ring2.reasons']).toHaveLength(33)
    expect((attributes['ring2.reasons'] as string[]).at(-1)).toBe('and 8 more')
    expect(attributes['ring2.records.seen']).toBe(40)
  })
})

describe('the span registry', () => {
  it('explains every attribute, and orders every statistic', () => {
    expect(Object.keys(spanAttributeHelp).sort()).toEqual(Object.keys(spanAttributes).sort())
    expect([...statisticOrder].sort()).toEqual([...statistics.values()].sort())
  })

  it('explains every attribute that a request span has', () => {
    const known = new Set<string>(Object.values(spanAttributes))
    const layerSeries = {}
    const summary = requestSummary({ layerSeries, globals: {} }, { attributes: {} })
    for (const name of Object.keys(requestAttributes(summary, URL))) expect(known).toContain(name)
  })
})
