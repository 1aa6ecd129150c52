/**
 * What verdicts are made of: the rules, the statistics they read, and the built-in bounds.
 *
 * The one place that holds those constants, each with its reason. The built-in bounds are for any
 * model, so they are far out: only what no healthy model was seen to do lies beyond them. What is
 * unusual for one model is known only after calibration (docs/verdicts.md).
 */
import type { Verdict } from './records.ts'
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

/** A statistic that has an upper or a lower bound. */
export interface JudgedStatistic {
  readonly hook: string
  readonly statistic: string
  /** The group it is computed in; null when it always is. */
  readonly group: StatisticGroup | null
  readonly scale: Scale
  /** The rule that a value below, or above, the bounds breaks; null where none does. */
  readonly below: VerdictRule | null
  readonly above: VerdictRule | null
  /** The built-in bounds; null where only a calibrated baseline has one. */
  readonly low: number | null
  readonly high: number | null
  /** Learnt bounds are at least this far from the learnt extremes, on the scale. */
  readonly marginMin: number
  /** Whether it compares a layer with the one before, which then has to be captured too. */
  readonly needsLayerBefore?: boolean
  /** The first layer that the built-in bounds are for. */
  readonly defaultsFromLayer?: number
}

/** A factor of two: the mean entropy of a request follows its topic. */
const ENTROPY_MARGIN = Math.LN2
/** A factor of 1.25: a layer's norms depend little on the prompt. */
const NORM_MARGIN = Math.log(1.25)
/** 0.5 becomes 0.38 or 0.62: shares of attention follow the length of the prompt. */
const SHARE_MARGIN = 0.5
/** A table or a list repeats itself without being a loop. */
const REPETITION_MARGIN = 0.2

export const judgedStatistics: readonly JudgedStatistic[] = [
  {
    hook: 'final_logits',
    statistic: 'entropy_mean',
    group: null,
    scale: 'log',
    below: 'low_entropy',
    above: 'high_entropy',
    // A model that is as sure of every token as of 0.9999 says one thing only.
    low: 1e-3,
    // As uncertain as among 400 tokens, on average over an answer: text is at 0 to 4 nat.
    high: 6,
    marginMin: ENTROPY_MARGIN,
  },
  {
    hook: 'token_ids',
    statistic: 'repetition',
    group: 'sequence',
    scale: 'linear',
    below: null,
    above: 'looping',
    // Half of all 4-grams came before: people are at 0.006, greedy models at 0.44 (Welleck 2020).
    low: null,
    high: 0.5,
    marginMin: REPETITION_MARGIN,
  },
  ...['resid_pre', 'resid_final'].flatMap((hook): JudgedStatistic[] => [
    {
      hook,
      statistic: 'token_cosine_mean',
      group: 'representation',
      scale: 'share',
      below: null,
      above: 'collapsed',
      // All tokens point one way. The last layer of GPT-2 is at 0.99 (Ethayarajh 2019), healthy.
      low: null,
      high: 0.9995,
      marginMin: SHARE_MARGIN,
    },
    {
      hook,
      statistic: 'rank_residual',
      group: 'representation',
      scale: 'share',
      below: 'collapsed',
      above: null,
      // sqrt(1 − 0.9995): the same as the cosine's bound for tokens of one norm.
      low: 0.022,
      high: null,
      marginMin: SHARE_MARGIN,
    },
    {
      hook,
      statistic: 'layer_growth_mean',
      group: 'layers',
      scale: 'log',
      below: 'collapsed',
      above: 'collapsed',
      // A typical layer adds a few percent; what leaves the embedding may grow twentyfold at once.
      low: 1 / 8,
      high: 8,
      defaultsFromLayer: 2,
      needsLayerBefore: true,
      marginMin: NORM_MARGIN,
    },
    {
      hook,
      // Position 0 is left out: in many models its norm alone is larger than all the others'.
      statistic: 'l2_no_first_mean',
      group: 'outliers',
      scale: 'log',
      below: 'collapsed',
      above: 'collapsed',
      // Norms differ between models by orders of magnitude.
      low: null,
      high: null,
      marginMin: NORM_MARGIN,
    },
  ]),
  {
    hook: 'pattern',
    statistic: 'entropy_no_sink_mean',
    group: null,
    scale: 'share',
    below: 'collapsed',
    above: 'collapsed',
    // The mean head of a layer looks at one key besides the sink, or at all keys alike.
    low: 0.1,
    high: 0.995,
    marginMin: SHARE_MARGIN,
  },
  {
    hook: 'pattern',
    statistic: 'sink_mass',
    group: null,
    scale: 'share',
    below: 'collapsed',
    above: 'collapsed',
    // A strong sink is normal, and some layers of every model have none.
    low: null,
    high: null,
    marginMin: SHARE_MARGIN,
  },
]

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
