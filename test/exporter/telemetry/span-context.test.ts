/** Spans whose context, or whose parent's times, came from another process. */
import { expect, onTestFinished, test } from 'vitest'
import type { RequestInfo } from '../../../collector/records.ts'
import { loadConfig } from '../../../exporter/config.ts'
import { emptySnapshot } from '../../../exporter/telemetry/metric-points.ts'
import { startTelemetry } from '../../../exporter/telemetry/sdk.ts'
import { type OtlpSpan, plainAttributes, startReceiver } from '../../helpers/otlp-receiver.ts'
import { recordingLogger, requestSummary, START_MICROS, TRACE } from './fixtures.ts'

const waitMillis = 60_000
const second = 1_000_000

/** The spans of one request that ran for 0.9 s from START_MICROS by the producer's clock. */
async function exported(request: Partial<RequestInfo>): Promise<OtlpSpan[]> {
  const receiver = await startReceiver()
  onTestFinished(() => receiver.stop())
  const environment = { RING2_TELEMETRY_ENDPOINT: receiver.url }
  const telemetry = startTelemetry({
    config: loadConfig({ environment }).config,
    snapshot: () => emptySnapshot(START_MICROS),
    logger: recordingLogger().logger,
    version: '0.1.0',
    apiUrl: () => 'http://tensors.example',
  })
  telemetry.spans.finish(requestSummary({}, request))
  expect(await telemetry.flush(waitMillis)).toBe(true)
  await telemetry.shutdown(waitMillis)
  return receiver.spans()
}

function requestSpan(spans: readonly OtlpSpan[]) {
  const span = spans.find(({ name }) => name === 'ring2 request')
  if (span === undefined) throw new Error('no request span')
  return { ...span, plain: plainAttributes(span.attributes) }
}

function windowFrom(from: number, to: number) {
  return {
    parentWindow: { startedAtMicros: START_MICROS + from, endedAtMicros: START_MICROS + to },
  }
}

const nanos = (offset: number) => `${START_MICROS + offset}000`

test("within its parent's window a request keeps its times and says nothing of clocks", async () => {
  const span = requestSpan(await exported(windowFrom(-5000, second)))
  expect([span.startTimeUnixNano, span.endTimeUnixNano]).toEqual([nanos(0), nanos(900_000)])
  expect(Object.keys(span.plain).filter((name) => name.startsWith('ring2.clock'))).toEqual([])
})

test('what reaches out of the window is cut off, and the true times are told', async () => {
  const spans = await exported(windowFrom(2000, 600_000))
  const span = requestSpan(spans)
  expect([span.startTimeUnixNano, span.endTimeUnixNano]).toEqual([nanos(2000), nanos(600_000)])
  expect(span.plain).toMatchObject({
    'ring2.clock.skew': 0.3,
    'ring2.clock.start': START_MICROS,
    'ring2.clock.end': START_MICROS + 900_000,
  })
  for (const { startTimeUnixNano, endTimeUnixNano } of spans) {
    expect(startTimeUnixNano >= nanos(2000) && endTimeUnixNano <= nanos(600_000)).toBe(true)
    expect(startTimeUnixNano <= endTimeUnixNano).toBe(true)
  }
})

test.each([
  ['ahead', -3600 * second],
  ['behind', 3600 * second],
])(
  "a producer's clock that is an hour %s moves the whole tree into the window",
  async (_, shift) => {
    const spans = await exported(windowFrom(shift, shift + second))
    const span = requestSpan(spans)
    // As long as it was, from the parent's start.
    expect([span.startTimeUnixNano, span.endTimeUnixNano]).toEqual([
      nanos(shift),
      nanos(shift + 900_000),
    ])
    const decode = spans.find(({ name }) => name === 'ring2 decode')
    expect(decode?.startTimeUnixNano).toBe(nanos(shift + 300_001))
    expect(Math.sign(Number(span.plain['ring2.clock.skew']))).toBe(-Math.sign(shift))
  },
)

test('a request sent once more links to the span that was sent before', async () => {
  const earlierSpan = { traceId: 'e'.repeat(32), spanId: 'f'.repeat(16) }
  const storedTraceId = earlierSpan.traceId
  const span = requestSpan(await exported({ traceOrigin: 'tap', storedTraceId, earlierSpan }))
  expect(span).toMatchObject({ traceId: TRACE, links: [earlierSpan] })
  expect(span.plain).toMatchObject({
    'ring2.trace.origin': 'tap',
    // The tensors are found by this one at once.
    'ring2.tensors.url': `http://tensors.example/t/${storedTraceId}`,
  })
})

test('why a traceparent was not taken is on the span', async () => {
  const span = requestSpan(await exported({ contextFault: 'traceparent_zero_id' }))
  expect(span.plain['ring2.context.rejected']).toBe('traceparent_zero_id')
  expect(span.links).toBeUndefined()
})
