import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  createMetricExporter,
  type MetricExporter,
  type MetricExporterOptions,
} from '../../../exporter/telemetry/metric-exporter.ts'
import { collectFamilies } from '../../../exporter/telemetry/metric-families.ts'
import { createMetricSender } from '../../../exporter/telemetry/metric-sender.ts'
import { metrics } from '../../../exporter/telemetry/registry.ts'
import {
  type MetricServer,
  metricsOf,
  pointsOf,
  type Received,
  startMetricServer,
} from '../../helpers/metric-server.ts'
import { plainAttributes } from '../../helpers/otlp-receiver.ts'
import { exportCounts, histogramOf, recordingLogger, START_MICROS, snapshotOf } from './fixtures.ts'

const WAIT_MILLIS = 60_000
vi.setConfig({ testTimeout: 2 * WAIT_MILLIS, hookTimeout: 2 * WAIT_MILLIS })

const stops: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

async function serve(answers: readonly string[]): Promise<MetricServer> {
  const server = await startMetricServer(answers)
  stops.push(server.stop)
  return server
}

/** Exports one histogram family per collection, whose count is the number of the collection. */
function create(url: string, changes: Partial<MetricExporterOptions> = {}, series = 1) {
  const { logger, messages } = recordingLogger()
  let collected = 0
  const exporter = createMetricExporter({
    collect: () => {
      collected += 1
      const values = new Array<number>(collected).fill(1)
      const histograms = Array.from({ length: series }, (_, layer) =>
        histogramOf(values, 3, { layer }),
      )
      const families = collectFamilies(snapshotOf(histograms), exportCounts())
      return {
        families: families.filter(({ definition }) => definition === metrics.l2Norm),
        takenAtMicros: START_MICROS + collected * 1_000_000,
      }
    },
    source: async () => ({
      resource: { 'service.name': 'test' },
      scope: { name: 'test', version: '1' },
    }),
    sender: createMetricSender({ url }, logger),
    logger,
    intervalMillis: 3_600_000,
    bytesMax: 1 << 20,
    retryMillisMin: 1,
    retryMillisMax: 4,
    ...changes,
  })
  // The server is gone by then, and what is left is of no interest.
  stops.push(() => exporter.shutdown(0))
  return { exporter, messages }
}

const nothing = { unknown_bytes: 0, resourceMetrics: [] }

/** Counts of the exported points by the answer that they got, in the order of arrival. */
function arrivals(received: readonly Received[]): string[] {
  return received.map(({ answer, request }) => {
    const [point] = pointsOf(request)
    return `${answer} ${point?.count}`
  })
}

async function waitUntil(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + WAIT_MILLIS
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error('it never came')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Collects without waiting for the Collector. */
async function collectOnly(exporter: MetricExporter): Promise<void> {
  await exporter.flush(0)
}

describe('createMetricExporter', () => {
  it('tries again after every answer that OTLP calls retryable', async () => {
    const answers = [
      'unavailable',
      'cancelled',
      'deadline_exceeded',
      'aborted',
      'out_of_range',
      'data_loss',
      'resource_exhausted',
      'throttled:0.05',
    ]
    const server = await serve(answers)
    const { exporter, messages } = create(server.url)
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    expect(arrivals(await server.stop())).toEqual([...answers, 'ok'].map((answer) => `${answer} 1`))
    expect(exporter.status()).toMatchObject({ delivered: 1, failures: 8, pending: 0 })
    expect(messages()).toEqual([
      expect.stringContaining('RING2_E_TELEMETRY'),
      'the Collector takes metrics again',
    ])
  })

  it.each(['invalid_argument', 'unauthenticated', 'unimplemented', 'internal', 'too_large'])(
    'gives up what is answered by %s, counts it, and goes on with the next',
    async (answer) => {
      const server = await serve([answer])
      const { exporter } = create(server.url)
      expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
      expect(exporter.status().failing).not.toBeNull()
      await exporter.flush(WAIT_MILLIS)
      expect(arrivals(await server.stop())).toEqual([`${answer} 1`, 'ok 2'])
      expect(exporter.status()).toMatchObject({
        delivered: 1,
        lost: { rejected: 1 },
        failing: null,
      })
    },
  )

  it('makes requests smaller once the Collector found one too large', async () => {
    const server = await serve(['too_large'])
    const { exporter } = create(server.url, {}, 1500)
    await exporter.flush(WAIT_MILLIS)
    await exporter.flush(WAIT_MILLIS)
    const [first, ...rest] = (await server.stop()).map(({ request }) => pointsOf(request).length)
    expect(first).toBe(1500)
    expect(rest.length).toBeGreaterThan(1)
    expect(rest.reduce((sum, points) => sum + points, 0)).toBe(1500)
    expect(exporter.status()).toMatchObject({ delivered: 1500, lost: { rejected: 1500 } })
  })

  it('keeps to the pause that the Collector asks for', async () => {
    const server = await serve(['throttled:30'])
    const { exporter } = create(server.url)
    expect(await exporter.flush(300)).toBe(false)
    // Pauses of our own are 4 ms at most, so without the word there would be many tries by now.
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(server.received.map(({ answer }) => answer)).toEqual(['throttled:30'])
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    expect(exporter.status()).toMatchObject({ delivered: 2, lost: { rejected: 0 } })
  })

  it('delivers the history of an outage in order, each point with its own time', async () => {
    const server = await serve(new Array(6).fill('unavailable'))
    const { exporter } = create(server.url)
    for (let export_ = 0; export_ < 5; export_ += 1) await collectOnly(exporter)
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    const taken = (await server.stop()).filter(({ answer }) => answer === 'ok')
    expect(arrivals(taken)).toEqual([1, 2, 3, 4, 5, 6].map((count) => `ok ${count}`))
    expect(taken.flatMap(({ request }) => pointsOf(request)[0]?.timeUnixNano)).toEqual(
      [1, 2, 3, 4, 5, 6].map((second) => `${START_MICROS + second * 1_000_000}000`),
    )
    expect(exporter.status()).toMatchObject({ delivered: 6, lost: { queue_full: 0 } })
  })

  it('pushes the oldest exports out when the Collector is away for too long, and counts them', async () => {
    const server = await serve([])
    const away = 'http://127.0.0.1:1'
    const { logger, messages } = recordingLogger()
    let url = away
    const sender = {
      send: (request: { bytes: Buffer; points: number }) =>
        createMetricSender({ url }, logger).send(request),
      close: async () => undefined,
    }
    // One export of 20 points is some 4 kB.
    const { exporter } = create(away, { sender, logger, bytesMax: 15_000 }, 20)
    for (let export_ = 0; export_ < 30; export_ += 1) await collectOnly(exporter)
    const { pendingBytes, pending, lost } = exporter.status()
    expect(pendingBytes).toBeLessThanOrEqual(15_000)
    expect(pending + lost.queue_full).toBe(600)
    expect(pending).toBeGreaterThan(20)
    url = server.url
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    const counts = (await server.stop()).map(({ request }) => Number(pointsOf(request)[0]?.count))
    expect(counts).toEqual([...counts].sort((a, b) => a - b))
    expect(counts.at(-1)).toBe(31)
    const after = exporter.status()
    expect(after.delivered + after.lost.queue_full).toBe(620)
    expect(messages()).toContain('metrics are being lost')
  })

  it('counts what a partial success rejects, and says why once', async () => {
    const server = await serve(['partial:3:out of order', 'partial:2:out of order', 'ok'])
    const { exporter, messages } = create(server.url, {}, 10)
    for (let export_ = 0; export_ < 3; export_ += 1) await exporter.flush(WAIT_MILLIS)
    expect(exporter.status()).toMatchObject({
      delivered: 25,
      lost: { rejected: 5 },
      failures: 0,
      failing: null,
    })
    const said = messages().filter((message) => message.includes('only a part'))
    expect(said).toHaveLength(1)
    expect(await server.stop()).toHaveLength(3)
  })

  it('never believes that more was rejected than was sent', async () => {
    const server = await serve(['partial:1000000:all of it'])
    const { exporter } = create(server.url, {}, 4)
    await exporter.flush(WAIT_MILLIS)
    await exporter.flush(WAIT_MILLIS)
    expect(exporter.status()).toMatchObject({ delivered: 4, lost: { rejected: 4 } })
  })

  it('takes OK for acceptance also when its body cannot be read, and says so once', async () => {
    const server = await serve(['garbage', 'garbage'])
    const { exporter, messages } = create(server.url)
    await exporter.flush(WAIT_MILLIS)
    await exporter.flush(WAIT_MILLIS)
    expect(arrivals(await server.stop())).toEqual(['garbage 1', 'garbage 2'])
    expect(exporter.status()).toMatchObject({ delivered: 2, failing: null, failures: 0 })
    expect(messages().filter((message) => message.includes('no OTLP'))).toHaveLength(1)
  })

  it('counts what is left at shutdown as lost, and sends nothing afterwards', async () => {
    const server = await serve(new Array(100).fill('unavailable'))
    const { exporter, messages } = create(server.url, { retryMillisMin: 20_000 })
    await collectOnly(exporter)
    await exporter.shutdown(200)
    const { pending, delivered, lost } = exporter.status()
    expect({ pending, delivered, lost }).toEqual({
      pending: 0,
      delivered: 0,
      lost: { queue_full: 0, rejected: 0, shutdown: 2 },
    })
    await exporter.flush(10)
    const sent = await server.stop()
    expect(new Set(arrivals(sent))).toEqual(new Set(['unavailable 1']))
    expect(messages()).toContain('metrics were lost')
  })

  it('exports by itself at its interval', async () => {
    const server = await serve([])
    create(server.url, { intervalMillis: 20 })
    await waitUntil(() => server.received.length > 2)
    expect(arrivals(server.received.slice(0, 3))).toEqual(['ok 1', 'ok 2', 'ok 3'])
  })

  it('outlives a collection that fails, and says so once', async () => {
    const server = await serve([])
    let defect: Error | null = new Error('no snapshot')
    const families = collectFamilies(snapshotOf([]), exportCounts())
    const collect = () => {
      if (defect !== null) throw defect
      return { families, takenAtMicros: START_MICROS }
    }
    const { exporter, messages } = create(server.url, { collect })
    await exporter.flush(WAIT_MILLIS)
    await exporter.flush(WAIT_MILLIS)
    expect(messages()).toEqual(['metrics cannot be collected'])
    defect = null
    await exporter.flush(WAIT_MILLIS)
    const sent = (await server.stop()).flatMap(({ request }) => metricsOf(request))
    expect(sent).toHaveLength(families.length)
  })

  it('leaves out points that cannot be encoded, counts them, and says so once', async () => {
    const server = await serve([])
    const good = [1, 2, 4].map((layer) => histogramOf([1], 3, { layer }))
    const bad = [
      histogramOf([1], 3, { layer: 0, count: Number.POSITIVE_INFINITY }),
      histogramOf([1], 3, { layer: 3, buckets: [Number.NaN] }),
      histogramOf([1], 3, { layer: 5, offset: 0.5 }),
    ]
    const histograms = [bad[0], good[0], good[1], bad[1], good[2], bad[2]].flatMap(
      (one) => one ?? [],
    )
    const families = collectFamilies(snapshotOf(histograms), exportCounts()).filter(
      ({ definition }) => definition === metrics.l2Norm || definition === metrics.requests,
    )
    const endless = families.map((family) => ({
      ...family,
      numbers: family.numbers.map((one) => ({ ...one, value: Number.POSITIVE_INFINITY })),
    }))
    const counters = families.flatMap(({ numbers }) => numbers).length
    expect(counters).toBeGreaterThan(0)
    const collect = () => ({ families: endless, takenAtMicros: START_MICROS + 1 })
    const { exporter, messages } = create(server.url, { collect })
    for (const _ of [1, 2]) expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    const sent = (await server.stop()).map(({ request }) =>
      pointsOf(request).map(({ attributes }) => plainAttributes(attributes)['ring2.layer']),
    )
    expect(sent).toEqual([
      [1, 2, 4],
      [1, 2, 4],
    ])
    expect(exporter.status()).toMatchObject({
      delivered: 6,
      lost: { rejected: 2 * (bad.length + counters) },
    })
    expect(messages()).toEqual([expect.stringContaining('cannot be encoded')])
  })

  it('sends the headers that the environment gives, compressed where it says so', async () => {
    vi.stubEnv('OTEL_EXPORTER_OTLP_METRICS_HEADERS', 'x-tenant=blue')
    vi.stubEnv('OTEL_EXPORTER_OTLP_METRICS_COMPRESSION', 'gzip')
    const server = await serve([])
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', server.url)
    const { logger } = recordingLogger()
    const { exporter } = create('http://127.0.0.1:1', { sender: createMetricSender({}, logger) })
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    vi.unstubAllEnvs()
    const [first] = await server.stop()
    expect(first?.headers['x-tenant']).toBe('blue')
    expect(pointsOf(first?.request ?? nothing)).toHaveLength(1)
  })

  it('gives up waiting for an answer after the time that the environment gives', async () => {
    vi.stubEnv('OTEL_EXPORTER_OTLP_METRICS_TIMEOUT', '150')
    const server = await serve(['silent:1', 'ok'])
    const { exporter } = create(server.url)
    vi.unstubAllEnvs()
    expect(await exporter.flush(WAIT_MILLIS)).toBe(true)
    expect((await server.stop()).map(({ answer }) => answer)).toEqual(['silent:1', 'ok'])
    expect(exporter.status()).toMatchObject({ delivered: 1, failures: 1 })
  })
})
