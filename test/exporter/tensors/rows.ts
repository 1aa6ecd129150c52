/**
 * Rows and summaries for the tests of the store: small, complete, and easy to vary.
 */

import type {
  ModelInfo,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
  TensorRow,
} from '../../../collector/records.ts'
import { crc32c } from './crc32c.ts'

export const traceA = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1'
export const traceB = 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2'
/** 2026-03-04T05:06:07.123456Z */
export const noonMicros = 1_772_600_767_123_456

export const model: ModelInfo = {
  name: 'HuggingFaceTB/SmolLM2-135M-Instruct',
  revision: 'main',
  engine: 'transformers',
  dtype: 'float32',
  layers: 2,
  heads: 2,
  kvHeads: 1,
  hidden: 4,
  vocabulary: 8,
  hooks: { resid_pre: [0, 1], pattern: [0, 1], final_logits: [-1] },
}

export const producer: ProducerInfo = {
  segment: 'chat',
  boot: '00c0ffee00c0ffee',
  host: 'host-1',
  pid: 4711,
}

/** A second model that works under the same requests, in a process of its own. */
export const otherModel: ModelInfo = { ...model, name: 'draft/model' }

export const otherProducer: ProducerInfo = { ...producer, segment: 'draft', pid: 4712 }

export function request(change: Partial<RequestInfo> = {}): RequestInfo {
  return {
    key: 1,
    requestId: 'request-1',
    traceId: traceA,
    spanId: '1111111111111111',
    parentSpanId: '2222222222222222',
    traceFlags: 1,
    traceState: null,
    traceOrigin: 'request',
    attributes: { route: '/chat', empty: '' },
    startedAtMicros: noonMicros,
    ...change,
  }
}

export function floats(...values: number[]): Uint8Array {
  return new Uint8Array(new Float32Array(values).buffer)
}

/** One row; its checksum fits its data unless a test says otherwise. */
export function row(change: Partial<TensorRow> = {}): TensorRow {
  const data = change.data ?? floats(1, 2, 3, 4)
  return {
    request: request(),
    model,
    producer,
    hook: 'resid_pre',
    layer: 0,
    step: 0,
    phase: 'prefill',
    tokenStart: 0,
    tokenEnd: 1,
    kvOffset: 0,
    ranks: { tp: 0, pp: 0, dp: 0, ep: 0 },
    capturedAtMicros: noonMicros,
    dtype: 'float32',
    shape: [1, 4],
    statistics: {},
    nonfinite: 0,
    crc32c: crc32c(data),
    data,
    ...change,
  }
}

export function summary(change: Partial<RequestSummary> = {}): RequestSummary {
  return {
    request: request(),
    model,
    producer,
    endedAtMicros: noonMicros + 1_000_000,
    tokens: 3,
    promptTokens: 2,
    findings: [],
    missingEvidence: [],
    baseline: 'default',
    steps: 2,
    phases: [
      {
        phase: 'prefill',
        startedAtMicros: noonMicros,
        endedAtMicros: noonMicros + 500_000,
        tokenStart: 0,
        tokenEnd: 2,
        steps: 1,
      },
      {
        phase: 'decode',
        startedAtMicros: noonMicros + 500_000,
        endedAtMicros: noonMicros + 1_000_000,
        tokenStart: 2,
        tokenEnd: 3,
        steps: 1,
      },
    ],
    verdict: 'ok',
    completeness: { state: 'complete', expected: 10, seen: 10, reasons: [] },
    layerSeries: { 'resid_pre.l2_mean': [1.5, null] },
    globals: { 'final_logits.entropy_mean': 2.25 },
    nan: 0,
    posInf: 0,
    negInf: 0,
    tensorsStored: 2,
    bytesStored: 32,
    ...change,
  }
}
