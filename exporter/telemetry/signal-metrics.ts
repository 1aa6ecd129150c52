/**
 * The metrics that are folded natively: one base-2 exponential histogram per signal of
 * native/include/ring2.h. Part of the registry (registry.ts); how each statistic is defined is in
 * docs/statistics.md.
 */
import { hooks } from '../../collector/hooks.gen.ts'
import type { MetricDefinition, MetricUnit } from './metric-definition.ts'

const attributes = ['gen_ai.request.model', 'ring2.hook', 'ring2.layer', 'ring2.phase'] as const

/** 2^-9 … 2^5, closest between 4 and 16: entropies and margins in nat. */
const natBounds = [
  -36, -28, -20, -16, -12, -8, -4, 0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20,
]
/** 2^-9 … 1, closest above one half: shares, of which the ones near 1 matter most. */
const shareBounds = [-36, -28, -24, -20, -16, -14, -12, -10, -8, -6, -4, -3, -2, -1, 0]
/** 2^-4 … 2^17 by octaves: L2 norms. */
const normBounds = Array.from({ length: 22 }, (_, octave) => (octave - 4) * 4)
/** 1 … 2^16 by octaves: ratios to a median, kurtosis. */
const ratioBounds = Array.from({ length: 17 }, (_, octave) => octave * 4)
/** 2^-14 … 2 by octaves: distances that are near 0 when two things are alike. */
const distanceBounds = Array.from({ length: 16 }, (_, octave) => (octave - 14) * 4)
/** 2^-6 … 2^6 by half octaves: ratios around 1. */
const growthBounds = Array.from({ length: 25 }, (_, half) => (half - 12) * 2)

const attention = ['pattern']
const stream = ['resid_pre', 'resid_mid', 'resid_final']
const keysAndValues = ['k', 'v']
const logits = ['final_logits']

function histogram(
  name: string,
  unit: MetricUnit,
  signal: string,
  quarterOctaves: readonly number[],
  onHooks: readonly string[],
  help: string,
): MetricDefinition {
  return { name, kind: 'histogram', unit, help, attributes, signal, quarterOctaves, hooks: onHooks }
}

const measuredRows = hooks
  .map(({ name }) => name)
  .filter((name) => !['pattern', 'attn_scores', 'token_ids', 'topk_ids'].includes(name))

/** Every folded metric, by a short name for code. */
export const signalMetrics = {
  l2Norm: histogram(
    'ring2.tensor.l2_norm',
    '1',
    'l2_norm',
    normBounds,
    measuredRows,
    'L2 norm of a row of a tensor, one sample per token (and head).',
  ),
  kurtosis: histogram(
    'ring2.tensor.kurtosis',
    '1',
    'kurtosis',
    ratioBounds,
    stream,
    'Fourth moment over the squared second of a row (3 for a Gaussian), per token.',
  ),
  outlierRatio: histogram(
    'ring2.tensor.outlier_ratio',
    '1',
    'outlier_ratio',
    ratioBounds,
    stream,
    'Largest magnitude over the median magnitude, one sample per tensor.',
  ),
  nearZeroShare: histogram(
    'ring2.tensor.near_zero.share',
    '1',
    'near_zero_share',
    shareBounds,
    stream,
    'Share of elements within a thousandth of their row’s RMS of zero, one sample per tensor.',
  ),
  attentionEntropy: histogram(
    'ring2.attention.entropy',
    '1',
    'attention_entropy',
    shareBounds,
    attention,
    'Entropy of an attention row divided by the logarithm of the keys it sees, per head and query.',
  ),
  attentionEntropyNoSink: histogram(
    'ring2.attention.entropy_no_sink',
    '1',
    'attention_entropy_no_sink',
    shareBounds,
    attention,
    'The same without key 0, the usual attention sink, renormalised.',
  ),
  attentionCollapsedHeads: histogram(
    'ring2.attention.collapsed_heads.share',
    '1',
    'attention_collapsed_heads',
    shareBounds,
    attention,
    'Share of heads whose mean entropy without the sink is below 0.05, one sample per tensor.',
  ),
  attentionSinkMass: histogram(
    'ring2.attention.sink.mass',
    '1',
    'attention_sink_mass',
    shareBounds,
    attention,
    'Attention that goes to key 0, per head and query after the first.',
  ),
  attentionSinkMass4: histogram(
    'ring2.attention.sink4.mass',
    '1',
    'attention_sink_mass_4',
    shareBounds,
    attention,
    'Attention that goes to keys 0 to 3, per head and query from the fifth on.',
  ),
  attentionTopKeyMass: histogram(
    'ring2.attention.top_key.mass',
    '1',
    'attention_top_key_mass',
    shareBounds,
    attention,
    'Mean attention on the key that gets most of it, per head of a prefill.',
  ),
  attentionPreviousTokenMass: histogram(
    'ring2.attention.previous_token.mass',
    '1',
    'attention_previous_token_mass',
    shareBounds,
    attention,
    'Attention that goes to the token before, per head and query.',
  ),
  attentionSelfMass: histogram(
    'ring2.attention.self.mass',
    '1',
    'attention_self_mass',
    shareBounds,
    attention,
    'Attention that goes to the query’s own token, per head and query.',
  ),
  attentionRecencyMass: histogram(
    'ring2.attention.recency.mass',
    '1',
    'attention_recency_mass',
    shareBounds,
    attention,
    'Attention that goes to the last 16 tokens, per head and query from the 17th on.',
  ),
  attentionLookbackRatio: histogram(
    'ring2.attention.lookback.ratio',
    '1',
    'attention_lookback_ratio',
    shareBounds,
    attention,
    'Mean attention on prompt tokens over that plus the mean on generated ones, per head and decode query.',
  ),
  logitsEntropy: histogram(
    'ring2.logits.entropy',
    '{nat}',
    'logits_entropy',
    natBounds,
    logits,
    'Entropy of the softmax over the vocabulary, one sample per row of logits.',
  ),
  logitsVarentropy: histogram(
    'ring2.logits.varentropy',
    '{nat2}',
    'logits_varentropy',
    natBounds,
    logits,
    'Variance of the surprisal under the softmax, one sample per row of logits.',
  ),
  logitsTop1Probability: histogram(
    'ring2.logits.top1.probability',
    '1',
    'logits_top1_probability',
    shareBounds,
    logits,
    'Probability of the most likely token, one sample per row of logits.',
  ),
  logitsMargin: histogram(
    'ring2.logits.margin',
    '{nat}',
    'logits_margin',
    natBounds,
    logits,
    'Logarithm of the ratio of the two largest probabilities, one sample per row of logits.',
  ),
  tokenSurprisal: histogram(
    'ring2.token.surprisal',
    '{nat}',
    'token_surprisal',
    natBounds,
    ['final_logits', 'token_ids'],
    'Negative logarithm of the probability of the token that came, at temperature 1, per token.',
  ),
  requestRepetition: histogram(
    'ring2.request.repetition',
    '1',
    'request_repetition',
    shareBounds,
    ['token_ids'],
    'Share of generated 4-grams that came before, one sample per request.',
  ),
  layerCosineDistance: histogram(
    'ring2.layer.cosine_distance',
    '1',
    'layer_cosine_distance',
    distanceBounds,
    ['resid_pre', 'resid_final'],
    'One minus the cosine of the residual stream with itself one layer before (block influence), per token.',
  ),
  layerGrowth: histogram(
    'ring2.layer.growth',
    '1',
    'layer_growth',
    growthBounds,
    ['resid_pre', 'resid_final'],
    'Norm of the residual stream over its norm one layer before, per token.',
  ),
  branchContribution: histogram(
    'ring2.layer.contribution',
    '1',
    'branch_contribution',
    growthBounds,
    ['attn_out', 'mlp_out'],
    'Norm of a branch’s output over the norm of the stream it is added to, per token.',
  ),
  tokenCosineDistance: histogram(
    'ring2.representation.cosine_distance',
    '1',
    'token_cosine_distance',
    distanceBounds,
    ['resid_pre', 'resid_final'],
    'One minus the mean cosine of all pairs of tokens, per prefill and per window of 32 generated tokens.',
  ),
  rankResidual: histogram(
    'ring2.representation.rank_residual',
    '1',
    'rank_residual',
    distanceBounds,
    ['resid_pre', 'resid_final'],
    'What is left of the hidden states without their mean, as a share of their Frobenius norm, likewise.',
  ),
  participationRatio: histogram(
    'ring2.representation.participation_ratio',
    '1',
    'participation_ratio',
    Array.from({ length: 13 }, (_, half) => half * 2),
    ['resid_pre', 'resid_final'],
    'Effective dimensions of the last 64 hidden states of a prefill.',
  ),
  routerEntropy: histogram(
    'ring2.router.entropy',
    '1',
    'router_entropy',
    shareBounds,
    ['router_logits'],
    'Entropy of the router’s softmax divided by the logarithm of the number of experts, per token.',
  ),
  expertEntropy: histogram(
    'ring2.router.expert.entropy',
    '1',
    'expert_entropy',
    shareBounds,
    ['topk_weights'],
    'Entropy of the chosen experts’ weights divided by the logarithm of their number, per token.',
  ),
  expertMaxViolation: histogram(
    'ring2.router.load.max_violation',
    '1',
    'expert_max_violation',
    distanceBounds,
    ['topk_ids'],
    'Load of the busiest expert over the mean load, less one; per window of 1000 expected tokens per expert.',
  ),
  expertLoadVariation: histogram(
    'ring2.router.load.variation',
    '1',
    'expert_load_variation',
    distanceBounds,
    ['topk_ids'],
    'Standard deviation of the experts’ loads over their mean, likewise.',
  ),
  expertLoadEntropy: histogram(
    'ring2.router.load.entropy',
    '1',
    'expert_load_entropy',
    shareBounds,
    ['topk_ids'],
    'Entropy of the experts’ loads divided by the logarithm of their number, likewise.',
  ),
  expertDeadShare: histogram(
    'ring2.router.load.dead.share',
    '1',
    'expert_dead_share',
    shareBounds,
    ['topk_ids'],
    'Share of experts that no token was sent to, likewise.',
  ),
  kvTokenOutlier: histogram(
    'ring2.kv.token_outlier',
    '1',
    'kv_token_outlier',
    ratioBounds,
    keysAndValues,
    'Largest norm of a key or value over the median norm, per head of a prefill.',
  ),
  kvChannelOutlier: histogram(
    'ring2.kv.channel_outlier',
    '1',
    'kv_channel_outlier',
    ratioBounds,
    keysAndValues,
    'Largest RMS of a channel over the median RMS, per head of a prefill.',
  ),
  kvFirstTokenRatio: histogram(
    'ring2.kv.first_token.ratio',
    '1',
    'kv_first_token_ratio',
    growthBounds,
    keysAndValues,
    'Norm of the first token’s key or value over the median norm, per head of a prefill.',
  ),
} as const satisfies Record<string, MetricDefinition>
