/**
 * What verdicts are made of: the rules, the statistics they read, and the built-in bounds.
 *
 * The one place that holds those constants, each with its reason. The built-in bounds are for any
 * model, so they are far out: only what no healthy model was seen to do lies beyond them. What is
 * unusual for one model is known only after calibration (docs/verdicts.md).
 */
import type { Phase, Verdict } from './records.ts'
import type { StatisticGroup } from './statistic-groups.ts'

/** Every rule, by the verdict that it can give. */
export const verdictRules = [
  'nonfinite',
  'collapsed',
  'looping',
  'low_entropy',
  'high_entropy',
] as const satisfies readonly Verdict[]

export type VerdictRule = (typeof verdictRules)[number]

/**
 * On which scale a statistic is widened: `log` for what is positive and spans decades, `share` (the
 * log odds) for what lies between 0 and 1, so that a widened bound stays a possible value; `linear`
 * for what often is exactly 0, and never below.
 */
export type Scale = 'log' | 'share' | 'linear'

/** What a statistic must not fall below, or rise above. */
export interface Side {
  readonly rule: VerdictRule
  /** The built-in bound; null where only a calibrated baseline has one. */
  readonly bound: number | null
  readonly scale: Scale
  /** A learnt bound is at least this far from the learnt extreme, on the scale. */
  readonly marginMin: number
}

/** A statistic that has bounds. */
export interface JudgedStatistic {
  readonly hook: string
  readonly statistic: string
  /** The group it is computed in; null when it always is. */
  readonly group: StatisticGroup | null
  readonly below: Side | null
  readonly above: Side | null
  /**
   * Whether it compares a layer with the one before, which then has to be captured too. When the
   * ring was released between the two there is no value: then one phase's is evidence enough.
   */
  readonly needsLayerBefore?: boolean
  /** The first layer that is judged: layer 0 is the embedding, which tells of the text alone. */
  readonly fromLayer?: number
  /** The first layer that the built-in bounds are for. */
  readonly defaultsFromLayer?: number
  /** Judged over the tokens of each of these phases apart: a long prompt would hide an answer. */
  readonly phases: readonly Phase[]
  /** Tokens of a phase from which on the statistic is judged there. */
  readonly tokensMin: Readonly<Record<Phase, number>>
  /** Values that are possible, both ends included. */
  readonly range: readonly [number, number]
}

/** A factor of 1.25: a layer's norms depend little on the prompt. */
const NORM_MARGIN = Math.log(1.25)
/** 0.5 becomes 0.38 or 0.62: shares of attention follow the length of the prompt. */
const SHARE_MARGIN = 0.5
/** 0.5 becomes 0.12 or 0.88: a layer without a sink has 1/n on the first of n keys. */
const SINK_MARGIN = 2

const both: readonly Phase[] = ['prefill', 'decode']
/** Rows of generated tokens are compared in windows of so many: docs/statistics.md. */
const WINDOW_TOKENS = 32
/** A mean of growth is over so many tokens of a prompt: what the first one does would rule it. */
const GROWTH_TOKENS = 16
const share = [0, 1] as const
const positive = [Number.MIN_VALUE, Number.MAX_VALUE] as const
/** The natural logarithm of 2^24 tokens: no vocabulary is larger. */
const ENTROPY_MAX = 24 * Math.LN2

const collapsed = (bound: number | null, scale: Scale): Side => ({
  rule: 'collapsed',
  bound,
  scale,
  marginMin: scale === 'log' ? NORM_MARGIN : SHARE_MARGIN,
})

export const judgedStatistics: readonly JudgedStatistic[] = [
  {
    hook: 'final_logits',
    statistic: 'entropy_mean',
    group: null,
    // A model that is as sure of every token as of 0.9999 says one thing only.
    below: { rule: 'low_entropy', bound: 1e-3, scale: 'log', marginMin: Math.LN2 },
    // As uncertain as among 33 tokens, on average over an answer. Measured: docs/verdicts.md.
    above: { rule: 'high_entropy', bound: 3.5, scale: 'linear', marginMin: 0.5 },
    // What the model expected of the prompt says nothing of what it made of it.
    phases: ['decode'],
    tokensMin: { prefill: 1, decode: 1 },
    range: [0, ENTROPY_MAX],
  },
  {
    hook: 'token_ids',
    statistic: 'repetition',
    group: 'sequence',
    below: null,
    // Half of all 4-grams came before: people are at 0.006, greedy models at 0.44 (Welleck 2020).
    above: { rule: 'looping', bound: 0.5, scale: 'linear', marginMin: 0.2 },
    phases: ['decode'],
    tokensMin: { prefill: 1, decode: 1 },
    range: share,
  },
  ...['resid_pre', 'resid_final'].flatMap((hook): JudgedStatistic[] => [
    {
      hook,
      statistic: 'token_cosine_mean',
      group: 'representation',
      below: null,
      // All tokens point one way. The last layer of GPT-2 is at 0.99 (Ethayarajh 2019), healthy.
      above: collapsed(0.9995, 'share'),
      fromLayer: 1,
      phases: both,
      tokensMin: { prefill: 3, decode: WINDOW_TOKENS },
      range: [-1, 1],
    },
    {
      hook,
      statistic: 'rank_residual',
      group: 'representation',
      // sqrt(1 − 0.9995): the same as the cosine's bound for tokens of one norm.
      below: collapsed(0.022, 'share'),
      above: null,
      fromLayer: 1,
      phases: both,
      tokensMin: { prefill: 3, decode: WINDOW_TOKENS },
      range: share,
    },
    {
      hook,
      statistic: 'layer_growth_mean',
      group: 'layers',
      // A typical layer adds a few percent; what leaves the embedding may grow twentyfold at once.
      below: collapsed(1 / 8, 'log'),
      above: collapsed(8, 'log'),
      defaultsFromLayer: 2,
      needsLayerBefore: true,
      phases: both,
      tokensMin: { prefill: GROWTH_TOKENS, decode: 1 },
      range: positive,
    },
    {
      hook,
      // Position 0 is left out: in many models its norm alone is larger than all the others'.
      statistic: 'l2_no_first_mean',
      group: 'outliers',
      // Norms differ between models by orders of magnitude, so nothing is built in.
      below: collapsed(null, 'log'),
      above: collapsed(null, 'log'),
      phases: both,
      tokensMin: { prefill: 2, decode: 1 },
      range: positive,
    },
  ]),
  {
    hook: 'pattern',
    statistic: 'entropy_no_sink_mean',
    group: null,
    // The mean head of a layer looks at one key besides the sink, or at all keys alike.
    below: collapsed(0.1, 'share'),
    above: collapsed(0.995, 'share'),
    phases: both,
    tokensMin: { prefill: 3, decode: 1 },
    range: share,
  },
  {
    hook: 'pattern',
    statistic: 'sink_mass',
    group: null,
    // A strong sink is normal, and some layers of every model have none.
    below: { ...collapsed(null, 'share'), marginMin: SINK_MARGIN },
    above: { ...collapsed(null, 'share'), marginMin: SINK_MARGIN },
    phases: both,
    tokensMin: { prefill: 2, decode: 1 },
    range: share,
  },
]

export function judgedName({ hook, statistic }: JudgedStatistic): string {
  return `${hook}.${statistic}`
}

/** `<hook>.<statistic>` of all that rules read. */
export const ruleStatistics: ReadonlySet<string> = new Set([
  ...judgedStatistics.map(judgedName),
  'token_ids.loop_period',
  'token_ids.tokens_tracked',
])

export const verdictLimits = {
  /** Entropy is judged from so many generated tokens on: the mean of fewer follows single words. */
  entropyTokensMin: 4,
  /** A loop has to show in so many generated tokens: shorter answers repeat by chance. */
  loopTokensMin: 16,
  /**
   * A period that ends an answer counts as a loop when at least this share of its 4-grams came
   * before: three dots at the end of a long answer are none.
   */
  loopRepetitionMin: 0.2,
  /**
   * Without a period, repetition counts when the model was sure of it: entropy in nat. It is
   * perplexity 3, that of a fully looping generation (Welleck 2020).
   */
  loopEntropyMax: 1.1,
  /** Characters of a reason from elsewhere that is quoted. */
  reasonCharactersMax: 300,
} as const
