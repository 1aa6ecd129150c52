import { resourceFromAttributes } from '@opentelemetry/resources'
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace'
import { describe, expect, it, vi } from 'vitest'
import { spanLimits } from '../../../exporter/telemetry/limits.ts'
import {
  createRetryingExporter,
  type RetryingExporterOptions,
} from '../../../exporter/telemetry/retrying-exporter.ts'
import { recordingLogger } from './fixtures.ts'

type Answer = 'ok' | number | 'too large' | 'throw'

/** An exporter that gives the answers in turn, then takes everything. */
function scripted(answers: Answer[]) {
  const taken: string[] = []
  const sizes: number[] = []
  let closed = 0
  const exporter: SpanExporter = {
    export: (spans, done) => {
      sizes.push(spans.length)
      const answer = answers.shift() ?? 'ok'
      if (answer === 'throw') throw new Error('serializer broke')
      if (answer === 'ok') {
        taken.push(...spans.map((span) => span.name))
        done({ code: 0 })
      } else {
        const large = 'Received message larger than max (5 vs 4)'
        const code = answer === 'too large' ? 8 : answer
        const message = answer === 'too large' ? large : `status ${answer}`
        done({ code: 1, error: Object.assign(new Error(message), { code }) })
      }
    },
    shutdown: async () => {
      closed += 1
    },
  }
  return { exporter, taken, sizes, closed: () => closed }
}

function span(name: string, textLength = 0): ReadableSpan {
  const context = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), traceFlags: 1 }
  return {
    name,
    kind: 0,
    spanContext: () => context,
    startTime: [0, 0],
    endTime: [0, 0],
    duration: [0, 0],
    status: { code: 0 },
    attributes: { text: 'x'.repeat(textLength) },
    links: [],
    events: [],
    ended: true,
    resource: resourceFromAttributes({}),
    instrumentationScope: { name: 'test' },
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  }
}

function create(exporter: SpanExporter, changes: Partial<RetryingExporterOptions> = {}) {
  const { logger, messages } = recordingLogger()
  const retrying = createRetryingExporter({
    exporter,
    logger,
    spansMax: 100_000,
    bytesMax: 1 << 30,
    retryMillisMin: 1,
    retryMillisMax: 4,
    ...changes,
  })
  return { retrying, messages }
}

const names = (count: number) => Array.from({ length: count }, (_, index) => `span ${index}`)

describe('createRetryingExporter', () => {
  it('delivers 20,000 spans of one tick, in order and in bounded batches', async () => {
    const { exporter, taken, sizes } = scripted([])
    const { retrying } = create(exporter)
    for (const name of names(20_000)) retrying.enqueue(span(name))
    expect(await retrying.flush(60_000)).toBe(true)
    expect(taken).toEqual(names(20_000))
    expect(Math.max(...sizes)).toBeLessThanOrEqual(spanLimits.batchSpansMax)
    expect(retrying.status()).toMatchObject({ delivered: 20_000, pending: 0, pendingBytes: 0 })
  })

  it('bounds the bytes of one batch', async () => {
    const { exporter, taken, sizes } = scripted([])
    const { retrying } = create(exporter)
    for (const name of names(10)) retrying.enqueue(span(name, 100_000))
    await retrying.flush(60_000)
    expect(taken).toEqual(names(10))
    expect(Math.max(...sizes)).toBe(3)
  })

  it('tries again after every retryable answer, and says so once', async () => {
    const { exporter, taken } = scripted([14, 4, 1, 8, 10, 11, 15, 14, 'throw', 'ok'])
    const { retrying, messages } = create(exporter)
    for (const name of names(3)) retrying.enqueue(span(name))
    while (!(await retrying.flush(1000))) expect(retrying.status().failing).not.toBeNull()
    expect(taken).toEqual(names(3))
    expect(retrying.status()).toMatchObject({ delivered: 3, failing: null })
    expect(messages()).toHaveLength(2)
    expect(messages()[0]).toContain('RING2_E_TELEMETRY')
    expect(messages()[1]).toContain('takes spans again')
  })

  it('gives up on a batch that is refused for good, counts it, and goes on', async () => {
    const { exporter, taken } = scripted([3])
    const { retrying, messages } = create(exporter)
    for (const name of names(2)) retrying.enqueue(span(name))
    await retrying.flush(60_000)
    retrying.enqueue(span('later'))
    await retrying.flush(60_000)
    expect(taken).toEqual(['later'])
    expect(retrying.status().lost).toEqual({ queue_full: 0, rejected: 2, shutdown: 0 })
    expect(messages().some((message) => message.includes('being lost'))).toBe(true)
  })

  it('halves batches that the receiver finds too large, until they fit', async () => {
    const { exporter, taken, sizes } = scripted(['too large', 'too large'])
    const { retrying } = create(exporter)
    for (const name of names(8)) retrying.enqueue(span(name))
    await retrying.flush(60_000)
    expect(sizes.slice(0, 3)).toEqual([8, 4, 2])
    expect(taken).toEqual(names(8))
  })

  it('gives up on a single span that is too large', async () => {
    const { exporter, taken } = scripted(['too large'])
    const { retrying } = create(exporter)
    retrying.enqueue(span('huge'))
    await retrying.flush(60_000)
    expect(taken).toEqual([])
    expect(retrying.status().lost.rejected).toBe(1)
  })

  it('pushes the oldest spans out when the bound is reached, and counts them', async () => {
    const { exporter, taken } = scripted([])
    const { retrying } = create(exporter, { spansMax: 10 })
    for (const name of names(25)) retrying.enqueue(span(name))
    expect(retrying.status()).toMatchObject({ pending: 10, lost: { queue_full: 15 } })
    await retrying.flush(60_000)
    expect(taken).toEqual(names(25).slice(15))
  })

  it('bounds the bytes that wait, and always has room for the newest span', () => {
    const { exporter } = scripted([])
    const { retrying } = create(exporter, { bytesMax: 10_000 })
    for (const name of names(5)) retrying.enqueue(span(name, 1000))
    expect(retrying.status().pending).toBe(2)
    expect(retrying.status().pendingBytes).toBeLessThanOrEqual(10_000)
    retrying.enqueue(span('larger than the bound', 50_000))
    expect(retrying.status()).toMatchObject({ pending: 1, lost: { queue_full: 5 } })
  })

  it('never pushes out what is in flight, so that no span is both delivered and lost', async () => {
    const taken: string[] = []
    const inFlight: (() => void)[] = []
    const exporter: SpanExporter = {
      export: (spans, done) => {
        inFlight.push(() => {
          taken.push(...spans.map(({ name }) => name))
          done({ code: 0 })
        })
      },
      shutdown: async () => undefined,
    }
    const { retrying } = create(exporter, { spansMax: 4 })
    for (const name of names(4)) retrying.enqueue(span(name))
    await vi.waitUntil(() => inFlight.length > 0)
    for (const name of ['a', 'b', 'c']) retrying.enqueue(span(name))
    while (retrying.status().pending > 0) {
      inFlight.shift()?.()
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(taken).toEqual([...names(4), 'c'])
    expect(retrying.status()).toMatchObject({
      delivered: 5,
      pendingBytes: 0,
      lost: { queue_full: 2 },
    })
  })

  it('sends everything at shutdown, then closes the exporter once', async () => {
    const { exporter, taken, closed } = scripted([14])
    const { retrying } = create(exporter)
    for (const name of names(1000)) retrying.enqueue(span(name))
    await retrying.shutdown(60_000)
    await retrying.shutdown(60_000)
    expect(taken).toHaveLength(1000)
    expect(closed()).toBe(1)
  })

  it('counts what a shutdown could not send, and what comes after it', async () => {
    const { exporter } = scripted(Array<Answer>(100_000).fill(14))
    const { retrying, messages } = create(exporter)
    for (const name of names(5)) retrying.enqueue(span(name))
    await retrying.shutdown(20)
    retrying.enqueue(span('too late'))
    expect(retrying.status()).toMatchObject({
      delivered: 0,
      pending: 0,
      lost: { queue_full: 0, rejected: 0, shutdown: 6 },
    })
    expect(messages()).toContain('spans were lost')
  })

  it('resolves a flush at once when nothing waits', async () => {
    const { retrying } = create(scripted([]).exporter)
    expect(await retrying.flush(60_000)).toBe(true)
  })
})
