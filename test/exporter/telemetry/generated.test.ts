import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { configKeys } from '../../../exporter/config/keys.ts'
import { generatedFiles, staleFiles } from '../../../exporter/telemetry/generate.ts'
import { allMetrics, metricAttributes } from '../../../exporter/telemetry/registry.ts'
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

describe('otel-config/otelcol.yaml', () => {
  it('uses in its pipelines exactly the components that it defines', () => {
    const text = readFileSync(join(root, 'otel-config/otelcol.yaml'), 'utf8')
    const { service, ...components } = parse(text) as {
      service: { pipelines: Record<string, Record<string, string[]>> }
    } & Record<string, Record<string, unknown>>
    for (const [kind, defined] of Object.entries(components)) {
      const used = Object.values(service.pipelines).flatMap((pipeline) => pipeline[kind] ?? [])
      expect([...new Set(used)].sort()).toEqual(Object.keys(defined).sort())
    }
    expect(Object.keys(service.pipelines)).toEqual(['traces', 'metrics'])
  })
})
