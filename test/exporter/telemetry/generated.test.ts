import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { configKeys } from '../../../exporter/config/keys.ts'
import { generatedFiles, staleFiles } from '../../../exporter/telemetry/generate.ts'
import { metricAttributes } from '../../../exporter/telemetry/metric-definition.ts'
import { allMetrics } from '../../../exporter/telemetry/registry.ts'
import { spanAttributes } from '../../../exporter/telemetry/span-registry.ts'

const root = join(import.meta.dirname, '../../..')

describe('generated files', () => {
  it('are not stale', () => {
    expect(staleFiles(root)).toEqual([])
  })

  it('are found stale when they are missing', () => {
    expect(staleFiles('/nowhere')).toEqual([...generatedFiles().keys()])
  })

  it('tell of every metric, attribute and configuration key', () => {
    const signals = generatedFiles().get('docs/signals.md') ?? ''
    for (const { name } of allMetrics) expect(signals).toContain(`\`${name}\``)
    for (const name of Object.keys(metricAttributes)) expect(signals).toContain(`\`${name}\``)
    for (const name of Object.values(spanAttributes)) expect(signals).toContain(`\`${name}\``)
    const config = generatedFiles().get('docs/config.md') ?? ''
    for (const { path, variable } of configKeys) {
      expect(config).toContain(`\`${path}\``)
      expect(config).toContain(`\`${variable}\``)
    }
  })
})
