/** Summaries and snapshots for the tests of this folder. */

import { deriveSpanId } from '../../../collector/ids.ts'
import type { HistogramPoint, RequestInfo, RequestSummary } from '../../../collector/records.ts'
import { createLogger, type Logger } from '../../../exporter/logging.ts'
import type { ExportCounts } from '../../../exporter/telemetry/metric-families.ts'
import type { MetricSnapshot } from '../../../exporter/telemetry/metric-points.ts'

export const TRACE = '0af7651916cd43dd8448eb211c80319c'
export const PARENT = 'b7ad6b7169203331'
/** 2026-11-22T00:00:00.000123Z */
export const START_MICROS = 1_795_305_600_000_123

export function requestInfo(changes: Partial<RequestInfo> = {}): RequestInfo {
  const requestId = changes.requestId ?? 'chat-1'
  const traceId = changes.traceId ?? TRACE
  return {
    key: 1,
    requestId,
    traceId,
    spanId: deriveSpanId(traceId, requestId, 'request'),
    parentSpanId: PARENT,
    traceFlags: 1,
    traceState: null,
    traceOrigin: 'request',
    attributes: { route: '/chat' },
    startedAtMicros: START_MICROS,
    ...changes,
  }
}

export function requestSummary(
  changes: Partial<RequestSummary> = {},
  request: Partial<RequestInfo> = {},
): RequestSummary {
  return {
    request: requestInfo(request),
    model: {
      name: 'SmolLM2-135M-Instruct',
      revision: 'main',
      engine: 'transformers',
      dtype: 'float32',
      layers: 3,
      heads: 9,
      kvHeads: 3,
      hidden: 576,
      vocabulary: 49_152,
      hooks: { resid_pre: [0, 1, 2], final_logits: [-1] },
    },
    producer: { segment: 'chat', boot: 'ab12', host: 'box', pid: 7 },
    endedAtMicros: START_MICROS + 900_000,
    tokens: 12,
    promptTokens: 8,
    findings: [],
    missingEvidence: [],
    baseline: 'default',
    steps: 5,
    phases: [
      {
        phase: 'prefill',
        startedAtMicros: START_MICROS + 1000,
        endedAtMicros: START_MICROS + 300_000,
        tokenStart: 0,
        tokenEnd: 8,
        steps: 1,
      },
      {
        phase: 'decode',
        startedAtMicros: START_MICROS + 300_001,
        endedAtMicros: START_MICROS + 800_000,
        tokenStart: 8,
        tokenEnd: 12,
        steps: 4,
      },
    ],
    verdict: 'ok',
    completeness: { state: 'complete', expected: 20, seen: 20, reasons: [] },
    layerSeries: { 'resid_pre.l2_mean': [1.5, 2.5, 3.5] },
    globals: { 'final_logits.entropy_mean': 2.25 },
    nan: 0,
    posInf: 0,
    negInf: 0,
    tensorsStored: 20,
    bytesStored: 40_960,
    ...changes,
  }
}

/** The exponential histogram of some values, made as the data model defines it, value by value. */
export function histogramOf(
  values: readonly number[],
  scale: number,
  changes: Partial<HistogramPoint> = {},
): HistogramPoint {
  const positive = values.filter((value) => value > 0)
  const indexes = positive.map((value) => Math.ceil(Math.log2(value) * 2 ** scale) - 1)
  const offset = indexes.length === 0 ? 0 : Math.min(...indexes)
  const last = indexes.length === 0 ? -1 : Math.max(...indexes)
  const buckets = new Array<number>(last < offset ? 0 : last - offset + 1).fill(0)
  for (const index of indexes) buckets[index - offset] = (buckets[index - offset] ?? 0) + 1
  return {
    signal: 0,
    hook: 'resid_pre',
    layer: 0,
    phase: 'prefill',
    count: values.length,
    zeroCount: values.length - positive.length,
    sum: values.reduce((sum, value) => sum + value, 0),
    min: Math.min(...values),
    max: Math.max(...values),
    scale,
    offset,
    buckets,
    ...changes,
  }
}

export function snapshotOf(histograms: readonly HistogramPoint[]): MetricSnapshot {
  return {
    startedAtMicros: START_MICROS,
    takenAtMicros: START_MICROS + 15_000_000,
    uncalibrated: [{ model: 'SmolLM2-135M-Instruct', reason: 'no_entry', requests: 5 }],
    models: [
      {
        model: 'SmolLM2-135M-Instruct',
        refused: 0,
        histograms,
        elements: [
          {
            hook: 'resid_pre',
            layer: 0,
            elements: 4608,
            nan: 1,
            positiveInfinity: 2,
            negativeInfinity: 3,
            invalidRows: 4,
            skippedRows: 5,
            massive: 0,
          },
        ],
      },
    ],
    segments: [
      {
        segment: 'chat',
        startedAtMicros: START_MICROS - 60_000_000,
        committedRecords: 100,
        committedBytes: 123_456,
        losses: [{ reason: 'payload_full', records: 2, bytes: 2048 }],
        payloadUsedBytes: 4096,
        payloadLimitBytes: 1_048_576,
        metaUsedRecords: 3,
        metaLimitRecords: 64,
        lagSeconds: 0.25,
      },
    ],
    requests: [
      { model: 'SmolLM2-135M-Instruct', verdict: 'ok', completeness: 'complete', count: 5 },
      { model: 'SmolLM2-135M-Instruct', verdict: 'unknown', completeness: 'unknown', count: 1 },
    ],
    activeRequests: 2,
    contexts: {
      requests: { request: 3, tap: 2, request_id: 0, derived: 1 },
      received: 4,
      faults: { traceparent_malformed: 1 },
      late: 1,
      skewed: 1,
      waiting: 2,
    },
    store: {
      rows: 98,
      bytes: 120_000,
      files: 4,
      failures: 1,
      failing: false,
      pendingRows: 2,
      pendingBytes: 3456,
    },
    uploads: {
      files: 3,
      bytes: 90_000,
      failures: { throttled: 2 },
      waitingFiles: 1,
      waitingBytes: 30_000,
      waitingBytesMax: 1_000_000,
    },
    policyChanges: 3,
    removed: { age: { files: 2, bytes: 5000 }, size: { files: 1, bytes: 2000 } },
  }
}

/** What exporters count that have taken, lost and kept something. */
export function exportCounts(changes: Partial<ExportCounts> = {}): ExportCounts {
  const counts = { delivered: 7, lost: { rejected: 1 }, pending: 2, pendingBytes: 640, failures: 3 }
  return {
    startedAtMicros: START_MICROS,
    takenAtMicros: START_MICROS + 16_000_000,
    spans: counts,
    metrics: counts,
    ...changes,
  }
}

/** A logger whose lines can be looked at. */
export function recordingLogger(): { logger: Logger; messages: () => string[] } {
  const lines: string[] = []
  const logger = createLogger(
    { level: 'info', format: 'json' },
    { write: (line) => lines.push(line) },
  )
  return { logger, messages: () => lines.map((line) => String(JSON.parse(line).msg)) }
}
