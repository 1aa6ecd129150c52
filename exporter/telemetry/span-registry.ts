/**
 * The one registry of spans: their names, attributes and events.
 *
 * The span sink takes its names from here, and docs/signals.md is generated from it. Attributes
 * that carry a statistic are named after it, so they are given as patterns.
 */

import { hooks } from '../../collector/hooks.gen.ts'
import { verdicts } from '../../collector/records.ts'

export const spanNames = {
  request: 'ring2 request',
  prefill: 'ring2 prefill',
  decode: 'ring2 decode',
} as const

export const spanHelp: Readonly<Record<keyof typeof spanNames, string>> = {
  request: "One request, under the caller's span; a root span when the request came without one.",
  prefill: 'The part of the request that processed the prompt; child of `ring2 request`.',
  decode: 'The part of the request that generated tokens; child of `ring2 request`.',
}

export const eventNames = {
  nonfinite: 'ring2.nonfinite',
  incomplete: 'ring2.incomplete',
  finding: 'ring2.finding',
  evaluation: 'gen_ai.evaluation.result',
} as const

/** Of the span link to the span that was sent before the request's trace context came. */
export const linkHelp =
  'A `ring2 request` whose trace context came after it had been sent is sent once more, in the ' +
  "caller's trace; the link names the span that was sent before."

export const eventHelp: Readonly<Record<keyof typeof eventNames, string>> = {
  nonfinite: 'The request had NaN or infinite values; carries their counts.',
  incomplete: 'Something that the request called for is missing or unknown; carries the reasons.',
  finding: 'A rule that the request broke: which statistic, how far, in which layer.',
  evaluation: "The verdict in the words of OpenTelemetry's semantic conventions for generative AI.",
}

/** Attribute names of spans and events, by a short name for code. */
export const spanAttributes = {
  model: 'gen_ai.request.model',
  requestId: 'ring2.request.id',
  verdict: 'ring2.verdict',
  baseline: 'ring2.verdict.baseline',
  missingEvidence: 'ring2.verdict.missing_evidence',
  findingVerdict: 'ring2.finding.verdict',
  findingStatistic: 'ring2.finding.statistic',
  findingValue: 'ring2.finding.value',
  findingBound: 'ring2.finding.bound',
  findingDirection: 'ring2.finding.direction',
  findingLayer: 'ring2.finding.layer',
  evaluationName: 'gen_ai.evaluation.name',
  evaluationLabel: 'gen_ai.evaluation.score.label',
  evaluationExplanation: 'gen_ai.evaluation.explanation',
  completeness: 'ring2.completeness',
  recordsExpected: 'ring2.records.expected',
  recordsSeen: 'ring2.records.seen',
  reasons: 'ring2.reasons',
  anomaly: 'ring2.anomaly',
  nan: 'ring2.nonfinite.nan',
  positiveInfinity: 'ring2.nonfinite.positive_infinity',
  negativeInfinity: 'ring2.nonfinite.negative_infinity',
  tokensTotal: 'ring2.tokens.total',
  tokensPrompt: 'ring2.tokens.prompt',
  tokenStart: 'ring2.tokens.start',
  tokenEnd: 'ring2.tokens.end',
  steps: 'ring2.steps',
  engine: 'ring2.engine',
  segment: 'ring2.segment',
  traceOrigin: 'ring2.trace.origin',
  contextFault: 'ring2.context.rejected',
  clockSkew: 'ring2.clock.skew',
  clockStart: 'ring2.clock.start',
  clockEnd: 'ring2.clock.end',
  tensorsUrl: 'ring2.tensors.url',
  tensorsRows: 'ring2.tensors.rows',
  tensorsSize: 'ring2.tensors.size',
  phase: 'ring2.phase',
} as const

export type SpanAttribute = keyof typeof spanAttributes

interface SpanAttributeDefinition {
  readonly type: string
  readonly on: string
  readonly help: string
}

const request = '`ring2 request`'
const phases = '`ring2 prefill`, `ring2 decode`'
const finding = '`ring2.finding`'
const evaluation = '`gen_ai.evaluation.result`'

export const spanAttributeHelp: Readonly<Record<SpanAttribute, SpanAttributeDefinition>> = {
  model: { type: 'string', on: 'all', help: 'model name' },
  requestId: { type: 'string', on: 'all', help: "the caller's request id" },
  verdict: {
    type: 'string',
    on: request,
    help: verdicts.map((verdict) => `\`${verdict}\``).join(', '),
  },
  baseline: {
    type: 'string',
    on: request,
    help: 'which bounds it was judged by: `calibrated` or `default`',
  },
  missingEvidence: {
    type: 'string[]',
    on: request,
    help: 'what was missing to call it ok, in words; left out when nothing was',
  },
  findingVerdict: { type: 'string', on: finding, help: 'the verdict that the rule gives' },
  findingStatistic: { type: 'string', on: finding, help: '`<hook>.<statistic>`' },
  findingValue: { type: 'double', on: finding, help: 'what was measured' },
  findingBound: { type: 'double', on: finding, help: 'the bound that the value passed' },
  findingDirection: { type: 'string', on: finding, help: '`above` or `below`' },
  findingLayer: {
    type: 'int',
    on: finding,
    help: 'the layer furthest beyond its bound; left out for global hooks',
  },
  evaluationName: { type: 'string', on: evaluation, help: '`ring2.verdict`' },
  evaluationLabel: { type: 'string', on: evaluation, help: 'the verdict' },
  evaluationExplanation: {
    type: 'string',
    on: evaluation,
    help: 'findings and missing evidence, in words; left out when there are none',
  },
  completeness: {
    type: 'string',
    on: request,
    help: '`complete`, `incomplete` or `unknown`; what is unknown is never called complete',
  },
  recordsExpected: {
    type: 'int',
    on: request,
    help: 'records (hook × layer × step) that the steps called for',
  },
  recordsSeen: { type: 'int', on: request, help: 'records of these that came' },
  reasons: { type: 'string[]', on: '`ring2.incomplete`', help: 'what is missing, in words' },
  anomaly: {
    type: 'boolean',
    on: request,
    help: 'whether any rule was broken; for tail sampling',
  },
  nan: { type: 'int', on: `${request}, \`ring2.nonfinite\``, help: 'NaN elements' },
  positiveInfinity: { type: 'int', on: `${request}, \`ring2.nonfinite\``, help: '+Inf elements' },
  negativeInfinity: { type: 'int', on: `${request}, \`ring2.nonfinite\``, help: '−Inf elements' },
  tokensTotal: { type: 'int', on: request, help: 'tokens the model processed' },
  tokensPrompt: { type: 'int', on: request, help: 'tokens of the prompt' },
  tokenStart: { type: 'int', on: phases, help: 'first token of the phase' },
  tokenEnd: { type: 'int', on: phases, help: 'token after the last one of the phase' },
  steps: { type: 'int', on: 'all', help: 'forward passes' },
  engine: { type: 'string', on: request, help: '`transformers`, `vllm`, …' },
  segment: { type: 'string', on: request, help: 'shared-memory segment it came through' },
  traceOrigin: {
    type: 'string',
    on: request,
    help: 'where the trace id came from: `request`, `tap`, `request_id` or `derived`',
  },
  contextFault: {
    type: 'string',
    on: request,
    help: 'why the `traceparent` that the request came with was not taken; only where that is so',
  },
  clockSkew: {
    type: 'double',
    on: request,
    help:
      "seconds that the request reaches out of its parent span by the producer's clock, above 0 " +
      'behind its end, below 0 before its start; only where it does: its times are put inside',
  },
  clockStart: {
    type: 'int',
    on: request,
    help: "start by the producer's clock, in µs since 1970; with `ring2.clock.skew`",
  },
  clockEnd: {
    type: 'int',
    on: request,
    help: "end by the producer's clock, in µs since 1970; with `ring2.clock.skew`",
  },
  tensorsUrl: { type: 'string', on: request, help: 'address of the trace in the explorer' },
  tensorsRows: { type: 'int', on: request, help: 'tensor rows stored' },
  tensorsSize: { type: 'int', on: request, help: 'payload bytes stored' },
  phase: { type: 'string', on: `${phases}, ${finding}`, help: '`prefill` or `decode`' },
}

/** Attributes whose names are made of a hook and a statistic. */
export const seriesPatterns: readonly { pattern: string; type: string; help: string }[] = [
  {
    pattern: 'ring2.<hook>.<statistic>',
    type: 'double[]',
    help: 'one value per layer, for the layers in `ring2.<hook>.layers`',
  },
  {
    pattern: 'ring2.<hook>.layers',
    type: 'int[]',
    help: 'the layers that have a value of at least one statistic of the hook',
  },
  {
    pattern: 'ring2.<hook>.<statistic>.layers',
    type: 'int[]',
    help: 'the layers of this statistic, only where they differ from `ring2.<hook>.layers`',
  },
  {
    pattern: 'ring2.<hook>.<statistic>',
    type: 'double',
    help: 'for hooks that are not per layer',
  },
]

const hookNames: ReadonlySet<string> = new Set(hooks.map(({ name }) => name))

/**
 * Whether an attribute holds statistics and not their layers: a double or doubles, whatever the
 * values are.
 */
export function isStatistic(attribute: string): boolean {
  if (attribute === spanAttributes.findingValue) return true
  if (attribute === spanAttributes.findingBound) return true
  const [prefix, hook, ...statistic] = attribute.split('.')
  if (prefix !== 'ring2' || hook === undefined || !hookNames.has(hook)) return false
  return statistic.length > 0 && statistic.at(-1) !== 'layers'
}

/**
 * Which statistics come first when a span has room for 128 attributes and a request has more. What
 * is not listed comes last. All of them are in the store.
 */
export const statisticOrder: readonly string[] = [
  // What verdicts are made of, and what one looks at first.
  'l2_mean',
  'entropy_normalized_mean',
  'entropy_no_sink_mean',
  'sink_mass',
  'entropy_mean',
  'top1_probability_mean',
  'margin_mean',
  'surprisal_mean',
  'repetition',
  'loop_period',
  'tokens_tracked',
  'token_cosine_mean',
  'rank_residual',
  'layer_growth_mean',
  'l2_no_first_mean',
  // What tells where and how.
  'l2_max',
  'abs_max',
  'layer_cosine_mean',
  'contribution_mean',
  'participation_ratio',
  'collapsed_head_share',
  'head_entropy_min',
  'outlier_ratio',
  'abs_median',
  'massive_count',
  'kurtosis_max',
  'lookback_ratio',
  'recency_mass',
  'sink_score',
  'router_entropy_mean',
  'expert_entropy_mean',
  'token_outlier',
  'channel_outlier',
  'first_token_ratio',
  'varentropy_mean',
  'entropy_min',
  'entropy_max',
  // What repeats one of the above.
  'sink_mass_4',
  'top_key_mass',
  'previous_token_mass',
  'self_mass',
  'row_sum_error',
  'layer_cosine_min',
  'kurtosis_mean',
  'near_zero_share',
  'zero_share',
  'margin_probability_mean',
  'mean',
  'variance',
  'lse_mean',
  'logit_max_mean',
  'rms_mean',
  'rms_max',
]
