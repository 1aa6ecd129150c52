/**
 * Whether an expression can have data: every metric, label and label value that it names is one of the
 * registry, and each kind of metric is read as its kind asks for.
 */
import type { MetricAttribute, MetricDefinition } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel, prometheusName } from '../exporter/telemetry/prometheus-names.ts'
import { allMetrics, knownValues } from '../exporter/telemetry/registry.ts'
import { type LabelMatcher, readExpression, type Selector } from './expression.ts'
import { resourceLabels } from './promql.ts'

export interface LintContext {
  /** Series that recording rules make, and their labels. */
  readonly recorded?: ReadonlyMap<string, readonly string[]>
  /** Names of the dashboard's variables. */
  readonly variables?: readonly string[]
  /** Whether counters and histograms must be read as growth. */
  readonly growthOnly?: boolean
}

const byName: ReadonlyMap<string, MetricDefinition> = new Map(
  allMetrics.map((definition) => [prometheusName(definition), definition]),
)

/** The registry's definition of a metric that PromQL names. */
export function metricNamed(name: string): MetricDefinition | undefined {
  return byName.get(name)
}

/** What is wrong with it, in words; empty when nothing is. */
export function lintExpression(text: string, context: LintContext = {}): string[] {
  const expression = readExpression(text)
  if (!expression.valid) return [`not valid PromQL: ${text}`]
  const problems = expression.selectors.flatMap((selector) => lintSelector(selector, context))
  for (const { labels, selectors } of expression.groups) {
    for (const label of labels) {
      const without = selectors.filter((selector) => !hasLabel(selector, label, context))
      problems.push(...without.map(({ metric }) => `${metric} has no label ${label} to group by`))
    }
  }
  return problems
}

function hasLabel(selector: Selector, label: string, { recorded }: LintContext): boolean {
  if ((resourceLabels as readonly string[]).includes(label)) return true
  const made = recorded?.get(selector.metric)
  if (made !== undefined) return made.includes(label)
  const definition = byName.get(selector.metric)
  return definition === undefined || attributeOf(definition, label) !== undefined
}

function attributeOf(definition: MetricDefinition, label: string): MetricAttribute | undefined {
  return definition.attributes.find((attribute) => openMetricsLabel(attribute) === label)
}

function lintSelector(selector: Selector, context: LintContext): string[] {
  if (context.recorded?.has(selector.metric)) return []
  const definition = byName.get(selector.metric)
  if (definition === undefined) return [`no code emits ${selector.metric}`]
  const problems = selector.matchers.flatMap((matcher) => {
    return lintMatcher(definition, matcher, context.variables ?? [])
  })
  return [...problems, ...lintKind(definition, selector, context.growthOnly ?? false)]
}

function lintMatcher(
  definition: MetricDefinition,
  { label, operator, value }: LabelMatcher,
  variables: readonly string[],
): string[] {
  if ((resourceLabels as readonly string[]).includes(label)) return []
  const attribute = attributeOf(definition, label)
  if (attribute === undefined) return [`${definition.name} has no label ${label}`]
  const known = knownValues(definition, attribute)
  const values = operator.endsWith('~') ? value.split('|') : [value]
  return values.flatMap((one) => {
    const variable = /^\$(?:\{(\w+)\}|(\w+))$/.exec(one)
    const name = variable?.[1] ?? variable?.[2]
    if (name !== undefined) return variables.includes(name) ? [] : [`no variable ${name}`]
    if (known === null || known.includes(one)) return []
    return [`no code emits ${definition.name} with ${label} ${one}`]
  })
}

const growth: readonly string[] = ['rate', 'increase']

function lintKind(
  { name, kind }: MetricDefinition,
  { functions, window }: Selector,
  growthOnly: boolean,
): string[] {
  const [inner] = functions
  const grows = inner !== undefined && growth.includes(inner)
  const cumulative = kind === 'counter' || kind === 'histogram'
  if (grows && !cumulative) return [`${name} is a ${kind} and has no ${inner}`]
  if (!growthOnly) return []
  if (cumulative && !grows) return [`${name} is a ${kind}: read its rate or increase`]
  if (inner === 'rate' && window !== '$__rate_interval') {
    return [`rate(${name}) over ${window}: Grafana knows the right window, $__rate_interval`]
  }
  return []
}
