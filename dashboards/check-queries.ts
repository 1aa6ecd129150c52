/**
 * Asks a real Prometheus every query of every panel, and what every rule reads, and says which gave
 * data. What may be empty is the caller's to say, with the reason.
 */
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { alerts } from './alerts/alerts.ts'
import { withoutRecordings } from './alerts/grafana-rules.ts'
import { recordings } from './alerts/objective.ts'
import { dashboardsByName } from './dashboards.ts'
import { readExpression, withWindows } from './expression.ts'
import { panelsOf, queriesOf } from './lint.ts'

export interface CheckOptions {
  /** Metric as PromQL names it → why it may be without data here. */
  readonly excuses?: ReadonlyMap<string, string>
  /** As PromQL writes durations; what Grafana puts in for `$__rate_interval`. */
  readonly rateInterval?: string
  /** How far back to look, in seconds. */
  readonly rangeSeconds?: number
  /** End of the time range, in seconds since the epoch; now when left out. */
  readonly atSeconds?: number
}

export interface QueryCheck {
  /** Dashboard and panel, or the rule. */
  readonly where: string
  /** As it was asked. */
  readonly expression: string
  readonly outcome: 'data' | 'empty' | 'excused' | 'error'
  /** Why it may be empty, or what Prometheus said. */
  readonly reason?: string
}

interface Question {
  readonly where: string
  readonly expression: string
  /** Whether no series is an answer too, as of an alert that does not fire. */
  readonly mayBeSilent?: boolean
}

/** @param prometheusUrl without a path, as `http://127.0.0.1:9090`. */
export async function checkQueries(
  prometheusUrl: string,
  options: CheckOptions = {},
): Promise<QueryCheck[]> {
  const questions = [
    ...Object.entries(dashboardsByName()).flatMap(([name, dashboard]) =>
      panelQuestions(name, dashboard),
    ),
    ...ruleQuestions(),
  ]
  const checks: QueryCheck[] = []
  for (const question of questions) checks.push(await check(prometheusUrl, question, options))
  return checks
}

/** Those that should have had data and had none, a line each. */
export function failures(checks: readonly QueryCheck[]): string[] {
  return checks
    .filter(({ outcome }) => outcome === 'empty' || outcome === 'error')
    .map(({ where, outcome, reason, expression }) => {
      return `${where}: ${outcome}${reason === undefined ? '' : ` (${reason})`}: ${expression}`
    })
}

function panelQuestions(name: string, dashboard: Dashboard): Question[] {
  return panelsOf(dashboard).flatMap((panel) =>
    queriesOf(panel).map(({ expr }) => ({
      where: `${name} / ${panel.title}`,
      expression: withoutVariables(expr),
    })),
  )
}

/** Variables of labels set to all values; windows stay. */
function withoutVariables(expression: string): string {
  return expression.replaceAll(/"\$(?!__)\{?\w+\}?"/g, '".*"')
}

function ruleQuestions(): Question[] {
  const recorded = recordings.map(({ record, expression }) => ({
    where: `recording ${record}`,
    expression: withoutRecordings(expression),
  }))
  const alerted = alerts.flatMap(({ name, expression: written }): Question[] => {
    const expression = withoutRecordings(written)
    // A rule that does not fire gives nothing, so what it reads is asked for, one selector at a time.
    const read = new Set(readExpression(expression).selectors.map(({ text }) => text))
    return [
      { where: `rule ${name}`, expression, mayBeSilent: true },
      ...[...read].map((text) => ({ where: `rule ${name} reads`, expression: text })),
    ]
  })
  return [...recorded, ...alerted]
}

async function check(
  prometheusUrl: string,
  { where, expression: written, mayBeSilent = false }: Question,
  options: CheckOptions,
): Promise<QueryCheck> {
  const rangeSeconds = options.rangeSeconds ?? 3600
  const expression = withWindows(written, {
    rateInterval: options.rateInterval ?? '1m',
    range: `${rangeSeconds}s`,
  })
  const answer = await askRange(prometheusUrl, expression, rangeSeconds, options.atSeconds)
  if (typeof answer === 'string') return { where, expression, outcome: 'error', reason: answer }
  if (answer || mayBeSilent) return { where, expression, outcome: 'data' }
  const reason = excuseFor(expression, options.excuses)
  if (reason === undefined) return { where, expression, outcome: 'empty' }
  return { where, expression, outcome: 'excused', reason }
}

function excuseFor(
  expression: string,
  excuses: ReadonlyMap<string, string> | undefined,
): string | undefined {
  return readExpression(expression)
    .selectors.map(({ metric }) => excuses?.get(metric))
    .find((reason) => reason !== undefined)
}

const STEP_SECONDS = 15
const ANSWER_TIMEOUT_MILLIS = 30_000

interface RangeAnswer {
  readonly status: string
  readonly error?: string
  readonly data?: {
    readonly result: readonly {
      readonly values?: readonly (readonly [number, string])[]
      readonly histograms?: readonly unknown[]
    }[]
  }
}

/** Whether there is a value, one that is a number, anywhere in the range; or Prometheus' complaint. */
async function askRange(
  prometheusUrl: string,
  query: string,
  rangeSeconds: number,
  atSeconds = Date.now() / 1000,
): Promise<boolean | string> {
  const response = await fetch(`${prometheusUrl}/api/v1/query_range`, {
    method: 'POST',
    body: new URLSearchParams({
      query,
      start: String(atSeconds - rangeSeconds),
      end: String(atSeconds),
      step: String(STEP_SECONDS),
    }),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MILLIS),
  })
  const answer = (await response.json()) as RangeAnswer
  if (answer.status !== 'success') return answer.error ?? `status ${response.status}`
  return (answer.data?.result ?? []).some(({ values = [], histograms = [] }) => {
    return histograms.length > 0 || values.some(([, value]) => value !== 'NaN')
  })
}
