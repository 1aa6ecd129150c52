import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { withoutRecordings } from '../../dashboards/alerts/grafana-rules.ts'
import { objectiveAlerts } from '../../dashboards/alerts/objective.ts'
import { checkQueries, failures } from '../../dashboards/check-queries.ts'
import { orderedByLayer, quantile } from '../../dashboards/promql.ts'
import type { MetricDefinition } from '../../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel, prometheusName } from '../../exporter/telemetry/prometheus-names.ts'
import { allMetrics, metrics } from '../../exporter/telemetry/registry.ts'
import {
  promExemplars,
  promQuery,
  sendOtlp,
  stackIsThere,
  startTestStack,
  type TestStack,
} from '../helpers/stack.ts'
import {
  syntheticDocuments,
  syntheticModel,
  syntheticSeries,
} from '../helpers/synthetic-metrics.ts'

/** The first export of a model's objective: so many valid requests and not one good. */
function firstExport(model: string, valid: number, startMillis?: number): unknown {
  const text = (key: string, stringValue: string) => ({ key, value: { stringValue } })
  const nanos = (millis: number): string => `${BigInt(millis) * 1_000_000n}`
  const start = startMillis === undefined ? {} : { startTimeUnixNano: nanos(startMillis) }
  const counter = ({ name, unit }: MetricDefinition, asInt: number) => ({
    name,
    unit,
    sum: {
      aggregationTemporality: 2,
      isMonotonic: true,
      dataPoints: [
        {
          ...start,
          timeUnixNano: nanos(Date.now()),
          asInt,
          attributes: [text('gen_ai.request.model', model)],
        },
      ],
    },
  })
  const resource = { attributes: [text('service.name', 'ring2-exporter')] }
  const counters = [counter(metrics.sliValid, valid), counter(metrics.sliGood, 0)]
  return { resourceMetrics: [{ resource, scopeMetrics: [{ metrics: counters }] }] }
}

describe.runIf(stackIsThere())('A Prometheus that holds every metric', () => {
  let stack: TestStack
  const endSeconds = Math.floor(Date.now() / 1000)

  beforeAll(async () => {
    stack = await startTestStack({ servers: ['prometheus'] })
    const otlp = `${stack.urls.prometheus}/api/v1/otlp`
    // Points up to a minute ahead are taken; these end now and began ten minutes ago.
    for (const document of syntheticDocuments({ endSeconds, points: 40, intervalSeconds: 15 })) {
      expect(await sendOtlp(otlp, 'metrics', document)).toBe(200)
    }
  })

  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  test('answers every query of every panel and rule with data', async () => {
    const checks = await checkQueries(stack.urls.prometheus, { atSeconds: endSeconds })
    expect(failures(checks)).toEqual([])
    expect(new Set(checks.map(({ outcome }) => outcome))).toEqual(new Set(['data']))
    expect(checks.length).toBeGreaterThan(100)
  })

  test('says so when a metric is not there, and takes an excuse for it', async () => {
    const at = { atSeconds: endSeconds - 7200, rangeSeconds: 600 }
    const empty = failures(await checkQueries(stack.urls.prometheus, at))
    expect(empty.some((line) => line.startsWith('pipeline / Lag: empty'))).toBe(true)
    const excuses = new Map([[prometheusName(metrics.exportLag), 'nothing ran then']])
    const excused = failures(await checkQueries(stack.urls.prometheus, { ...at, excuses }))
    expect(excused.some((line) => line.startsWith('pipeline / Lag'))).toBe(false)
    expect(excused.length).toBeLessThan(empty.length)
  })

  test('has each of them under the name and labels that the registry foretells', async () => {
    for (const definition of allMetrics) {
      const found = await promQuery(stack, prometheusName(definition))
      expect(found.length, definition.name).toBe(syntheticSeries(definition).length)
      expect(found[0]?.metric).toMatchObject({
        __name__: prometheusName(definition),
        job: 'ring2-exporter',
        instance: 'one',
        service_name: 'ring2-exporter',
        host_name: 'here',
      })
      const labels = Object.keys(found[0]?.metric ?? {})
      expect(labels).toEqual(expect.arrayContaining(definition.attributes.map(openMetricsLabel)))
    }
  })

  test('gives layers in their order, and native histograms with right quantiles', async () => {
    const median = quantile(0.5, metrics.l2Norm, ['ring2.layer'], {}, '5m')
    const series = await promQuery(stack, orderedByLayer(median))
    const ordered = series.map(({ metric }) => metric[openMetricsLabel('ring2.layer')]).sort()
    expect(ordered).toEqual(['000', '002', '011'])
    // Eight buckets of equal counts from 1/2 to 2, evenly on a logarithmic scale.
    for (const { value } of series) expect(Number(value?.[1])).toBeCloseTo(1, 6)
  })

  test('keeps the traces that the points of a graph lead to', async () => {
    const query = quantile(0.5, metrics.logitsEntropy, ['gen_ai.request.model'], {}, '5m')
    const exemplars = await promExemplars(stack, query)
    expect(exemplars[0]?.labels).toEqual({
      trace_id: '4bf92f3577b34da6a3ce929d0e0e4736',
      span_id: '00f067aa0ba902b7',
    })
    const [series] = await promQuery(stack, query)
    expect(series?.metric).toEqual({ gen_ai_request_model: syntheticModel })
  })

  // Last, because it adds a series to what the other tests count.
  test('pages by the first sample of a counter that says when it began, and only then', async () => {
    const otlp = `${stack.urls.prometheus}/api/v1/otlp`
    const begun = firstExport('begun', 20, Date.now() - 20_000)
    expect(await sendOtlp(otlp, 'metrics', begun)).toBe(200)
    for (const _ of [1, 2]) {
      expect(await sendOtlp(otlp, 'metrics', firstExport('unsaid', 20))).toBe(200)
    }
    const fast = objectiveAlerts.find(({ name }) => name === 'Ring2BudgetBurnFast')
    const fired = await promQuery(stack, withoutRecordings(fast?.expression ?? ''))
    const models = fired.map(({ metric }) => metric[openMetricsLabel('gen_ai.request.model')])
    expect(models).toContain('begun')
    expect(models).not.toContain('unsaid')
  })
})
