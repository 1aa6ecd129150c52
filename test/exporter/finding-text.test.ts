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
