import { expect, test } from 'vitest'
import type { Finding } from '../../collector/records.ts'
import { findingText } from '../../exporter/finding-text.ts'

const finding: Finding = {
  verdict: 'collapsed',
  statistic: 'pattern.entropy_no_sink_mean',
  value: 0.08123,
  bound: 0.1,
  direction: 'below',
  layer: 15,
}

test('a finding says where it is: the phase and the layer, as far as it is of one', () => {
  const start = 'pattern.entropy_no_sink_mean 0.0812 is below 0.1'
  expect(findingText(finding)).toBe(`${start} in layer 15 (collapsed)`)
  expect(findingText({ ...finding, phase: 'decode' })).toBe(
    `${start} in decode, layer 15 (collapsed)`,
  )
  expect(findingText({ ...finding, layer: null, phase: 'prefill' })).toBe(
    `${start} in prefill (collapsed)`,
  )
  expect(findingText({ ...finding, layer: null })).toBe(`${start} (collapsed)`)
})

test('a value that just passed its bound is told apart from it', () => {
  const close: Finding = { ...finding, value: 0.99973, bound: 0.9995, direction: 'above', layer: 3 }
  expect(findingText(close)).toContain(' 0.9997 is above 0.9995 in layer 3')
})
