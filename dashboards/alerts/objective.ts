/**
 * The service level objective: recorded shares of bad requests, and alerts when they use up the error
 * budget too fast. A bad request is a valid one that is not good; unknown ones are neither, and have
 * an alert of their own (capture-alerts.ts).
 */
import { openMetricsLabel } from '../../exporter/telemetry/prometheus-names.ts'
import { metrics } from '../../exporter/telemetry/registry.ts'
import {
  type BurnRate,
  burnGuard,
  burnRates,
  serviceLevelObjective,
} from '../../exporter/telemetry/thresholds.ts'
import { aggregate, increase } from '../promql.ts'
import type { Alert, Recording } from './alert.ts'

const model = openMetricsLabel('gen_ai.request.model')
const labels = [model]

const valid = (window: string): string => `model:ring2_sli_valid:increase${window}`
const bad = (window: string): string => `model:ring2_sli_bad:increase${window}`
const badShare = (window: string): string => `model:ring2_sli_bad_share:increase${window}`

const windows: readonly string[] = [
  ...new Set(Object.values(burnRates).flatMap((rate) => [rate.shortWindow, rate.longWindow])),
]

/** In an order in which each names only those before it. */
export const recordings: readonly Recording[] = windows.flatMap((window) => {
  const sum = (metric: typeof metrics.sliValid): string =>
    aggregate('sum', ['gen_ai.request.model'], increase(metric, {}, window))
  return [
    { record: valid(window), labels, expression: sum(metrics.sliValid) },
    { record: bad(window), labels, expression: `${valid(window)} - ${sum(metrics.sliGood)}` },
    { record: badShare(window), labels, expression: `${bad(window)} / (${valid(window)} > 0)` },
  ]
})

function burnExpression({ factor, longWindow, shortWindow }: BurnRate): string {
  const limit = Number((factor * (1 - serviceLevelObjective)).toFixed(6))
  return [
    `${badShare(longWindow)} > ${limit}`,
    `${badShare(shortWindow)} > ${limit}`,
    // A share of one request in two says nothing yet.
    `${bad(longWindow)} >= ${burnGuard.badRequestsMin}`,
    `${valid(longWindow)} >= ${burnGuard.validRequestsMin}`,
  ].join('\nand ')
}

function burnAlert(name: string, rate: BurnRate, pace: string, budgetLasts: string): Alert {
  return {
    name,
    group: 'ring2-objective',
    severity: rate.severity,
    expression: burnExpression(rate),
    summary: `{{ $labels.${model} }} ${pace}`,
    description:
      `{{ $value | humanizePercentage }} of the valid requests of {{ $labels.${model} }} over the last ` +
      `${rate.longWindow} were bad, and the last ${rate.shortWindow} are no better. At this rate the budget of ` +
      `30 days is gone in ${budgetLasts}. The objective is ${serviceLevelObjective * 100} % good requests.`,
    panel: { dashboard: 'overview', title: 'Error budget burn' },
    variable: 'gen_ai_request_model',
  }
}

function times({ factor }: BurnRate): string {
  return `uses up its error budget ${factor} times too fast`
}

export const objectiveAlerts: readonly Alert[] = [
  burnAlert('Ring2BudgetBurnFast', burnRates.fast, times(burnRates.fast), 'two days'),
  burnAlert('Ring2BudgetBurnSlow', burnRates.slow, times(burnRates.slow), 'five days'),
  burnAlert('Ring2BudgetBurnLong', burnRates.long, 'leaves nothing of its error budget', 'a month'),
]
