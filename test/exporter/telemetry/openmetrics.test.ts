import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { ExemplarPoint, HistogramPoint } from '../../../collector/records.ts'
import { collectFamilies } from '../../../exporter/telemetry/metric-families.ts'
import {
  cumulativeCounts,
  type MetricsPage,
  writeMetricsPage,
} from '../../../exporter/telemetry/openmetrics.ts'
import { metrics } from '../../../exporter/telemetry/registry.ts'
import { python } from '../../helpers/otlp-receiver.ts'
import { exportCounts, histogramOf, PARENT, START_MICROS, snapshotOf, TRACE } from './fixtures.ts'

vi.setConfig({ testTimeout: 60_000 })

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  readonly exemplar: { labels: Record<string, string>; value: number; timestamp: number } | null
}

interface Family {
  readonly name: string
  readonly type: string
  readonly unit: string
  readonly samples: readonly Sample[]
}

const parser = join(import.meta.dirname, '../../helpers/parse_openmetrics.py')

function pageOf(histograms: readonly HistogramPoint[], accept?: string): MetricsPage {
  const target = { 'service.name': 'ring2-exporter', 'host.name': 'b\\o"x\n' }
  return writeMetricsPage(collectFamilies(snapshotOf(histograms), exportCounts()), target, accept)
}

/** What Python's strict parser reads; it throws on anything that is no OpenMetrics. */
function parse({ body }: MetricsPage, flags: readonly string[] = []): Map<string, Family> {
  const result = spawnSync(python, [parser, ...flags], { input: body, encoding: 'utf8' })
  if (result.status !== 0) throw new Error(result.stderr)
  const { families } = JSON.parse(result.stdout) as { families: Family[] }
  return new Map(families.map((family) => [family.name, family]))
}

function exemplarOf(value: number): ExemplarPoint {
  const ids = { traceId: TRACE, spanId: PARENT, requestId: 'chat-1' }
  return { value, ...ids, sampled: true, atMicros: START_MICROS }
}

function samplesOf(families: Map<string, Family>, name: string): readonly Sample[] {
  return families.get(name)?.samples ?? []
}

/** A fixed sequence of values over eight decades, some of them exact bounds, some zero. */
function manyValues(): number[] {
  const spread = Array.from({ length: 500 }, (_, index) => 10 ** (((index * 7919) % 800) / 100 - 2))
  return [...spread, 0, 0, 1, 2, 4, 0.5, 1024]
}

describe('the /metrics page', () => {
  it('is read by a strict parser, with names, types and units', () => {
    const families = parse(pageOf([histogramOf([1, 2, 3], 4)]))
    expect(families.get('ring2_tensor_l2_norm')?.type).toBe('histogram')
    expect(families.get('ring2_capture_io_bytes')).toMatchObject({ type: 'counter', unit: 'bytes' })
    expect(families.get('ring2_export_lag_seconds')).toMatchObject({
      type: 'gauge',
      unit: 'seconds',
    })
    expect(families.get('ring2_requests')?.samples[0]).toMatchObject({
      name: 'ring2_requests_total',
      value: 5,
      labels: {
        gen_ai_request_model: 'SmolLM2-135M-Instruct',
        ring2_verdict: 'ok',
        ring2_completeness: 'complete',
      },
    })
    const lost = samplesOf(families, 'ring2_capture_lost_records')
    const counts = lost.filter(({ name }) => name.endsWith('_total'))
    expect(counts.filter(({ value }) => value > 0)).toMatchObject([
      { labels: { ring2_segment: 'chat', error_type: 'payload_full' }, value: 2 },
    ])
    expect(samplesOf(families, 'ring2_ring_usage_bytes').map(({ value }) => value)).toEqual([
      4096,
      3 * 128,
    ])
    expect(families.get('target')?.samples[0]?.labels).toEqual({
      service_name: 'ring2-exporter',
      host_name: 'b\\o"x\n',
    })
  })

  it('is read by the parser when there is nothing to tell but zeros', () => {
    const families = parse(pageOf([]))
    expect(families.has('ring2_tensor_l2_norm')).toBe(false)
    expect(samplesOf(families, 'ring2_export_spans')[0]?.value).toBe(7)
  })

  it.each([0, 2, 3, 5, 12])(
    'counts in each bucket what is at or below its bound, at scale %i',
    (scale) => {
      const values = manyValues()
      // At scale 0 only whole octaves are exact, and all bounds of this metric are whole octaves.
      const families = parse(pageOf([histogramOf(values, scale)]))
      const samples = samplesOf(families, 'ring2_tensor_l2_norm')
      const buckets = samples.filter(({ name }) => name.endsWith('_bucket'))
      expect(buckets).toHaveLength((metrics.l2Norm.quarterOctaves?.length ?? 0) + 1)
      for (const { labels, value } of buckets) {
        const bound = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le)
        expect(value).toBe(values.filter((sample) => sample <= bound).length)
      }
      const count = samples.find(({ name }) => name.endsWith('_count'))
      const sum = samples.find(({ name }) => name.endsWith('_sum'))
      expect(count?.value).toBe(values.length)
      expect(sum?.value).toBeCloseTo(
        values.reduce((total, value) => total + value, 0),
        6,
      )
    },
  )

  it('never counts too high, nor falls, where exponential buckets are coarser than bounds', () => {
    const values = manyValues()
    const point = histogramOf(values, -1)
    const quarterOctaves = Array.from({ length: 160 }, (_, index) => index - 40)
    const counts = cumulativeCounts(point, quarterOctaves)
    for (const [index, quarterOctave] of quarterOctaves.entries()) {
      const exact = values.filter((value) => value <= 2 ** (quarterOctave / 4)).length
      expect(counts[index]).toBeGreaterThanOrEqual(counts[index - 1] ?? 0)
      expect(counts[index]).toBeLessThanOrEqual(exact)
      // The bounds of scale -1 are powers of four: eight quarters of an octave.
      if (quarterOctave % 8 === 0) expect(counts[index]).toBe(exact)
    }
    expect(cumulativeCounts(point, [400])).toEqual([values.length])
  })

  it('puts an exemplar with trace and span on the bucket that holds its value', () => {
    const exemplar = exemplarOf(3)
    const families = parse(pageOf([histogramOf([1, 2, 3], 4, { exemplar })]))
    const marked = samplesOf(families, 'ring2_tensor_l2_norm').filter((sample) => sample.exemplar)
    expect(marked).toHaveLength(1)
    expect(marked[0]?.labels.le).toBe('4.0')
    expect(marked[0]?.exemplar).toEqual({
      labels: { trace_id: TRACE, span_id: PARENT },
      value: 3,
      timestamp: START_MICROS / 1e6,
    })
  })

  it('puts an exemplar that is a bound on the bucket that ends there', () => {
    const exemplar = exemplarOf(4)
    const families = parse(pageOf([histogramOf([1, 2, 4], 4, { exemplar })]))
    const marked = samplesOf(families, 'ring2_tensor_l2_norm').filter((sample) => sample.exemplar)
    expect(marked.map(({ labels }) => labels.le)).toEqual(['4.0'])
  })

  it('puts an exemplar above all bounds on +Inf', () => {
    const exemplar = exemplarOf(1e9)
    const families = parse(pageOf([histogramOf([1e9], 4, { exemplar })]))
    const marked = samplesOf(families, 'ring2_tensor_l2_norm').filter((sample) => sample.exemplar)
    expect(marked.map(({ labels }) => labels.le)).toEqual(['+Inf'])
  })

  it('leaves the layer out for hooks that have none, and tells series apart', () => {
    const global = { layer: -1, hook: 'final_logits', signal: 1 }
    const families = parse(pageOf([histogramOf([1], 4, global), histogramOf([1], 4, { layer: 7 })]))
    const [logits] = samplesOf(families, 'ring2_logits_entropy')
    expect(logits?.labels).not.toHaveProperty('ring2_layer')
    expect(samplesOf(families, 'ring2_tensor_l2_norm')[0]?.labels.ring2_layer).toBe('7')
  })

  it('writes an empty histogram as one', () => {
    const empty = histogramOf([], 4, { min: 0, max: 0 })
    const samples = samplesOf(parse(pageOf([empty])), 'ring2_tensor_l2_norm')
    const counts = samples.filter(({ name }) => !name.endsWith('_created'))
    expect(counts.every(({ value }) => value === 0)).toBe(true)
  })

  it('says of every counter and histogram when it began', () => {
    const families = parse(pageOf([histogramOf([1, 2, 3], 4)]))
    const createdOf = (name: string) =>
      samplesOf(families, name).filter((sample) => sample.name === `${name}_created`)
    expect(createdOf('ring2_tensor_l2_norm').map(({ value }) => value)).toEqual([
      START_MICROS / 1e6,
    ])
    // A segment's counters began with the segment, before this exporter.
    expect(createdOf('ring2_capture_records')).toMatchObject([
      { labels: { ring2_segment: 'chat' }, value: (START_MICROS - 60_000_000) / 1e6 },
    ])
    for (const { name, type, samples } of families.values()) {
      const created = samples.filter((sample) => sample.name.endsWith('_created'))
      const totals = samples.filter((sample) => /_(total|count)$/.test(sample.name))
      expect([name, created.length]).toEqual([name, type === 'gauge' ? 0 : totals.length])
    }
  })

  it('has exemplars of at most 128 characters, as OpenMetrics asks', () => {
    const { body } = pageOf([histogramOf([1, 2, 3], 4, { exemplar: exemplarOf(3) })])
    const [, labels = ''] = /# \{(trace_id[^}]*)\}/.exec(body) ?? []
    const characters = labels.replaceAll(/[="]|,/g, '')
    expect(characters).toContain(TRACE)
    expect(characters.length).toBeLessThanOrEqual(128)
  })

  it('ends with EOF, and is OpenMetrics unless plain text is preferred', () => {
    for (const accept of [
      undefined,
      '*/*',
      'text/html',
      'application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1',
      'text/plain;q=0.2, application/openmetrics-text;q=0.9',
    ]) {
      const { body, contentType } = pageOf([], accept)
      expect(contentType).toContain('application/openmetrics-text; version=1.0.0')
      expect(body.endsWith('\n# EOF\n')).toBe(true)
    }
    for (const accept of [
      'text/plain;version=0.0.4',
      'text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
      'application/openmetrics-text;q=0.1, text/plain;q=0.9',
    ]) {
      expect(pageOf([], accept).contentType).toContain('text/plain; version=0.0.4')
    }
  })

  it('is plain text without exemplars for scrapers that know no OpenMetrics', () => {
    const accept = 'text/plain;version=0.0.4'
    const open = pageOf([histogramOf([1, 2, 3], 4, { exemplar: exemplarOf(3) })])
    const plain = pageOf([histogramOf([1, 2, 3], 4, { exemplar: exemplarOf(3) })], accept)
    const families = parse(plain, ['--text'])
    const values = (page: Map<string, Family>) =>
      [...page.values()]
        .flatMap(({ samples }) => samples)
        .filter(({ name }) => !name.endsWith('_created'))
        .map(({ name, labels, value }) => `${name}${JSON.stringify(labels)} ${value}`)
    expect(values(families)).toEqual(values(parse(open)))
    expect(plain.body).not.toMatch(/# (EOF|UNIT)| # \{/)
    expect(families.get('ring2_capture_io_bytes')?.type).toBe('counter')
    expect(families.get('ring2_tensor_l2_norm')?.type).toBe('histogram')
  })
})
