/**
 * What a metric is: kind, unit, attributes. Attributes are shared by metrics, so their values and help
 * are here; the metrics themselves are in registry.ts and signal-metrics.ts.
 */

import { hooks } from '../../collector/hooks.gen.ts'
import type { BaselineUnused } from '../../collector/index.ts'
import { lossReasons } from '../../collector/layout.gen.ts'
import {
  completenessStates,
  contextFaults,
  traceOrigins,
  verdicts,
} from '../../collector/records.ts'
import { uploadFailures } from '../store/upload-failure.ts'

export type MetricKind = 'histogram' | 'counter' | 'up_down_counter' | 'gauge'

/** UCUM; a unit in braces counts things. */
export type MetricUnit =
  | '1'
  | 'By'
  | 's'
  | '{nat}'
  | '{nat2}'
  | '{element}'
  | '{row}'
  | '{record}'
  | '{request}'
  | '{file}'
  | '{failure}'
  | '{span}'
  | '{point}'
  | '{sample}'
  | '{change}'

export interface AttributeDefinition {
  readonly type: 'string' | 'int'
  readonly help: string
  /** Every value that code can emit, or null where producers name them. */
  readonly values: readonly string[] | null
  /** For attributes without a list, what a value looks like. */
  readonly example?: string
}

/** Values of `error.type`: of what was lost in the capture, on the way out, and of baselines not used. */
export const captureLosses = [...lossReasons.values()]
export const deliveryLosses = ['queue_full', 'rejected', 'shutdown']
/** Why retention removes a file. */
export const removalReasons = ['age', 'size'] as const

export const baselineReasons: readonly BaselineUnused[] = [
  'other_revision',
  'other_dtype',
  'other_engine',
  'no_entry',
  'damaged',
]

/** Attributes of metrics. */
export const metricAttributes = {
  'gen_ai.request.model': {
    type: 'string',
    help: 'model name as the producer gave it',
    values: null,
    example: '`HuggingFaceTB/SmolLM2-135M-Instruct`',
  },
  'ring2.hook': {
    type: 'string',
    help: 'where in the model the tensor was taken',
    values: hooks.map(({ name }) => name),
  },
  'ring2.layer': {
    type: 'int',
    help: 'layer, from 0; left out for hooks that are not per layer',
    values: null,
    example: '`0` … `layers − 1`',
  },
  'ring2.phase': {
    type: 'string',
    help: 'phase of the request',
    values: ['prefill', 'decode'],
  },
  'ring2.nonfinite.kind': {
    type: 'string',
    help: 'kind of a value that is no finite number',
    values: ['nan', 'positive_infinity', 'negative_infinity'],
  },
  'ring2.verdict': {
    type: 'string',
    help: 'what the statistics say about the request',
    values: verdicts,
  },
  'ring2.completeness': {
    type: 'string',
    help: 'whether everything that the request called for was seen',
    values: completenessStates,
  },
  'ring2.segment': {
    type: 'string',
    help: 'name of the shared-memory segment',
    values: null,
    example: '`chat`',
  },
  'ring2.ring.kind': {
    type: 'string',
    help: 'which of the two rings of a segment',
    values: ['payload', 'meta'],
  },
  'ring2.removal.reason': {
    type: 'string',
    help: 'why retention removed a file: its age, or the bytes of the store',
    values: removalReasons,
  },
  'ring2.trace.origin': {
    type: 'string',
    help: "where a request's trace id came from, best first",
    values: traceOrigins,
  },
  'ring2.export.signal': {
    type: 'string',
    help: 'what is exported by OTLP',
    values: ['spans', 'metrics'],
  },
  'error.type': {
    type: 'string',
    help: 'why something was lost, not taken, not used, or failed',
    values: [
      ...captureLosses,
      ...deliveryLosses,
      ...contextFaults,
      ...baselineReasons,
      ...uploadFailures,
    ],
  },
} as const satisfies Record<string, AttributeDefinition>

export type MetricAttribute = keyof typeof metricAttributes

export interface MetricDefinition {
  readonly name: string
  readonly kind: MetricKind
  readonly unit: MetricUnit
  readonly help: string
  readonly attributes: readonly MetricAttribute[]
  /** Histograms: the name in `ring2_signal` that is folded into it. */
  readonly signal?: string
  /** Histograms: the hooks that can have it. */
  readonly hooks?: readonly string[]
  /** Values of an attribute on this metric, where they are not all of the attribute's own. */
  readonly values?: Readonly<Partial<Record<MetricAttribute, readonly string[]>>>
  /**
   * Histograms: upper bounds of the classic buckets on the /metrics page, in quarters of an octave:
   * n means 2^(n/4). Such bounds are also bounds of every exponential histogram of scale ≥ 2.
   */
  readonly quarterOctaves?: readonly number[]
}
