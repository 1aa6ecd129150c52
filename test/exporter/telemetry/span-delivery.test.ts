/** Spans on their way to a real gRPC server that is away, refuses, or answers nonsense. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Attributes } from '@opentelemetry/api'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { expect, onTestFinished, test } from 'vitest'
import {
  createRetryingExporter,
  type RetryingExporterOptions,
} from '../../../exporter/telemetry/retrying-exporter.ts'
import { createSpanExporter } from '../../../exporter/telemetry/span-exporter.ts'
import { plainAttributes, python, startReceiver } from '../../helpers/otlp-receiver.ts'
import { recordingLogger, requestSummary } from './fixtures.ts'

const waitMillis = 60_000

interface Export {
  readonly answer: string
  readonly request: readonly string[]
}

async function startServer(answers: readonly string[]) {
  const script = join(import.meta.dirname, '../../helpers/span_server.py')
  const child: ChildProcess = spawn(python, [script, ...answers], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  if (child.stdout === null) throw new Error('no standard output')
  const exports: Export[] = []
  const lines = createInterface({ input: child.stdout })
  const read = once(lines, 'close')
  const port = await new Promise<number>((resolve) => {
    lines.on('line', (line) => {
      const document = JSON.parse(line) as { port?: number } & Export
      if (document.port === undefined) exports.push(document)
      else resolve(document.port)
    })
  })
  const stop = async (): Promise<readonly Export[]> => {
    child.stdin?.end()
    await read
    return exports
  }
  onTestFinished(async () => void (await stop()))
  return { url: `http://127.0.0.1:${port}`, stop }
}

function span(name: string) {
  const spanId = Buffer.from(name.padEnd(8, '.')).toString('hex').slice(-16)
  const context = { traceId: 'a'.repeat(32), spanId, traceFlags: 1 }
  return {
    name,
    kind: 0 as const,
    spanContext: () => context,
    startTime: [1_795_305_600, 0] as [number, number],
    endTime: [1_795_305_601, 0] as [number, number],
    duration: [1, 0] as [number, number],
    status: { code: 0 as const },
    attributes: { 'ring2.request.id': requestSummary().request.requestId },
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

function deliver(url: string, changes: Partial<RetryingExporterOptions> = {}) {
  const { logger, messages } = recordingLogger()
  const retrying = createRetryingExporter({
    exporter: createSpanExporter({ url }, logger),
    logger,
    spansMax: 100_000,
    bytesMax: 1 << 30,
    retryMillisMin: 20,
    retryMillisMax: 100,
    ...changes,
  })
  onTestFinished(() => retrying.shutdown(1000))
  return { retrying, messages }
}

test('rejected spans of a partial success are counted and told, and not sent again', async () => {
  const server = await startServer(['partial:2:over quota'])
  const { retrying, messages } = deliver(server.url)
  for (const name of ['a', 'b', 'c']) retrying.enqueue(span(name))
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({ delivered: 1, lost: { rejected: 2 }, pending: 0 })
  retrying.enqueue(span('d'))
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({ delivered: 2, lost: { rejected: 2 } })
  expect(messages().join('\n')).toContain('the Collector took only a part of the spans')
  expect((await server.stop()).map(({ request }) => request)).toEqual([['a', 'b', 'c'], ['d']])
})

test('an OK whose body is no message counts as taken, and is told once', async () => {
  const server = await startServer(['garbage', 'garbage'])
  const { retrying, messages } = deliver(server.url)
  for (const name of ['a', 'b']) {
    retrying.enqueue(span(name))
    expect(await retrying.flush(waitMillis)).toBe(true)
  }
  expect(retrying.status()).toMatchObject({ delivered: 2, failing: null })
  expect(messages().filter((text) => text.includes('no OTLP'))).toHaveLength(1)
})

test('a Collector that is busy, throttles or times out gets every span once it takes them', async () => {
  const answers = ['unavailable', 'throttled:0.05', 'resource_exhausted', 'deadline_exceeded']
  const server = await startServer(answers)
  const { retrying } = deliver(server.url)
  const names = Array.from({ length: 700 }, (_, index) => `s-${index}`)
  for (const name of names) retrying.enqueue(span(name))
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({ delivered: 700, failures: 4, pending: 0 })
  const taken = (await server.stop()).filter(({ answer }) => answer === 'ok')
  expect(taken.flatMap(({ request }) => request)).toEqual(names)
})

test('what is refused for good is counted and does not stand in the way', async () => {
  const server = await startServer(['invalid_argument'])
  const { retrying } = deliver(server.url)
  retrying.enqueue(span('bad'))
  expect(await retrying.flush(waitMillis)).toBe(true)
  retrying.enqueue(span('good'))
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({ delivered: 1, lost: { rejected: 1 } })
})

test('spans that cannot be encoded are given up alone, counted, and told of once', async () => {
  const server = await startServer([])
  const left: string[] = []
  const { retrying, messages } = deliver(server.url, {
    onLeft: (spans) => void left.push(...spans.map(({ name }) => name)),
  })
  const names = Array.from({ length: 300 }, (_, index) => `s-${index}`)
  const damaged: Record<string, object> = {
    's-0': { startTime: [Number.POSITIVE_INFINITY, 0] },
    's-7': { endTime: [2 ** 34, 999_999_999], startTime: [2 ** 54, 0] },
    's-8': { endTime: [Number.NaN, 0] },
    's-150': { startTime: [-1, 0] },
    's-299': { droppedEventsCount: Number.POSITIVE_INFINITY },
  }
  for (const name of names) retrying.enqueue({ ...span(name), ...damaged[name] })
  expect(await retrying.flush(waitMillis)).toBe(true)
  const lost = Object.keys(damaged)
  expect(retrying.status()).toMatchObject({
    delivered: names.length - lost.length,
    lost: { rejected: lost.length, queue_full: 0 },
    pending: 0,
    failing: null,
  })
  const sent = (await server.stop()).flatMap(({ request }) => request)
  expect(sent).toEqual(names.filter((name) => !lost.includes(name)))
  // What can never be sent is not tried again by the next exporter either.
  expect(left).toEqual(names)
  expect(messages()).toEqual([expect.stringContaining('cannot be encoded')])
})

test('values that OTLP has no form for do not cost the span', async () => {
  const receiver = await startReceiver()
  onTestFinished(() => receiver.stop())
  const { retrying } = deliver(receiver.url)
  const attributes: Record<string, unknown> = {
    half: 'a\ud800b',
    large: 1e308,
    endless: Number.POSITIVE_INFINITY,
    beyond: 2 ** 53,
    big: 12n,
    symbol: Symbol('x'),
    object: { a: 1 },
    list: [1n, 'x', Symbol('y')],
  }
  retrying.enqueue({ ...span('odd'), attributes: attributes as Attributes })
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({ delivered: 1, lost: { rejected: 0 } })
  const [sent] = receiver.spans()
  expect(plainAttributes(sent?.attributes)).toMatchObject({ half: 'a\ufffdb', large: 1e308 })
})

test('a Collector that is away for long gets every span within the bound, in order', async () => {
  const first = await startReceiver()
  const { port, url } = first
  const { retrying, messages } = deliver(url, { spansMax: 7_000 })
  retrying.enqueue(span('before'))
  expect(await retrying.flush(waitMillis)).toBe(true)
  await first.stop()
  // More than ten minutes of 3 requests a second, three spans each, come while it is away.
  const names = Array.from({ length: 6_000 }, (_, index) => `away-${index}`)
  for (const name of names) retrying.enqueue(span(name))
  await expect.poll(() => retrying.status().failing, { timeout: waitMillis }).not.toBe(null)
  expect(retrying.status()).toMatchObject({ delivered: 1, pending: 6_000 })
  const again = await startReceiver(['--port', String(port)])
  onTestFinished(() => again.stop())
  expect(await retrying.flush(waitMillis)).toBe(true)
  expect(retrying.status()).toMatchObject({
    delivered: 6_001,
    lost: { queue_full: 0, rejected: 0, shutdown: 0 },
    failing: null,
  })
  const received = again.spans().map(({ name }) => name)
  // A batch whose answer was lost may have come twice; in order all the same.
  expect([...new Set(received)]).toEqual(names)
  expect(messages().filter((text) => text.includes('takes spans again'))).toHaveLength(1)
})

test('beyond the bound the oldest spans are lost, and counted', async () => {
  const { retrying } = deliver('http://127.0.0.1:1', { spansMax: 100 })
  for (let index = 0; index < 250; index += 1) retrying.enqueue(span(`s-${index}`))
  const { lost, pending } = retrying.status()
  expect({ lost: lost.queue_full, pending }).toEqual({ lost: 150, pending: 100 })
})
