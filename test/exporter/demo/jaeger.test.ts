import { expect, test } from 'vitest'
import { liesUnderApp } from '../../../exporter/demo/jaeger.ts'
import type { TraceSpan } from '../../../exporter/demo/trace-tree.ts'

type Change = Partial<
  Pick<TraceSpan, 'parentSpanId' | 'startMicros' | 'durationMicros' | 'service'>
>

/** A whole trace, with one span changed; one that is null is left out. */
function trace(changes: Readonly<Record<string, Change | null>> = {}): TraceSpan[] {
  const spans: readonly (readonly [string, string | null, string, number, number])[] = [
    ['POST /chat', 'client', 'app', 0, 100],
    ['llm.generate', 'POST /chat', 'app', 10, 80],
    ['ring2 request', 'llm.generate', 'ring2-exporter', 20, 60],
    ['ring2 prefill', 'ring2 request', 'ring2-exporter', 20, 10],
    ['ring2 decode', 'ring2 request', 'ring2-exporter', 30, 50],
  ]
  return spans
    .filter(([name]) => changes[name] !== null)
    .map(([name, parentSpanId, service, startMicros, durationMicros]) => ({
      ...{ spanId: name, name, parentSpanId, service, startMicros, durationMicros },
      ...{ attributes: {}, events: [] },
      ...changes[name],
    }))
}

test('a request whose phases lie in it, and itself in a span of the app, is under the app', () => {
  expect(liesUnderApp(trace(), { client: null })).toBe(true)
  // Times are cut to microseconds, so a child may seem to end one later.
  expect(liesUnderApp(trace({ 'ring2 decode': { durationMicros: 51 } }), { client: null })).toBe(
    true,
  )
})

test.each<[string, Record<string, Change | null>]>([
  ['without a request span', { 'ring2 request': null }],
  ['whose parent did not come', { 'llm.generate': null }],
  ['whose parent is the exporter’s', { 'llm.generate': { service: 'ring2-exporter' } }],
  ['that begins before its parent', { 'ring2 request': { startMicros: 9 } }],
  ['that ends after its parent', { 'ring2 request': { durationMicros: 72 } }],
  ['without its decode phase', { 'ring2 decode': null }],
  ['with a phase outside it', { 'ring2 prefill': { parentSpanId: 'llm.generate' } }],
  ['with a phase that ends after it', { 'ring2 decode': { durationMicros: 52 } }],
])('a request %s is not', (_name, changes) => {
  expect(liesUnderApp(trace(changes), { client: null })).toBe(false)
})
