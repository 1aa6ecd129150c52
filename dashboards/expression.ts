/**
 * What a PromQL expression names: metrics, labels, values, windows; read from Prometheus' own grammar. It
 * judges nothing. Grafana's variables are put in first.
 */
import type { SyntaxNode } from '@lezer/common'
import { parser } from '@prometheus-io/lezer-promql'

export interface LabelMatcher {
  readonly label: string
  readonly operator: string
  /** As written, without quotes. */
  readonly value: string
}

export interface Selector {
  /** As in the expression. */
  readonly text: string
  readonly metric: string
  readonly matchers: readonly LabelMatcher[]
  /** Functions around it, innermost first. */
  readonly functions: readonly string[]
  /** Window of a range selector, as in `[5m]`; undefined for an instant one. */
  readonly window?: string
}

export interface GroupedBy {
  readonly labels: readonly string[]
  /** What is aggregated, or both sides of what is matched. */
  readonly selectors: readonly Selector[]
}

export interface Expression {
  readonly text: string
  /** Whether Prometheus' grammar takes it. */
  readonly valid: boolean
  readonly selectors: readonly Selector[]
  readonly groups: readonly GroupedBy[]
}

/** Windows that Grafana puts in: name → one that is as good for reading and for asking Prometheus. */
export interface Windows {
  readonly rateInterval: string
  readonly range: string
}

/** Any window does, where the expression is only read; these two tell them apart. */
const markers: Windows = { rateInterval: '61001ms', range: '61002ms' }

/** The expression as Grafana sends it, with every variable of labels set to all values. */
export function withWindows(text: string, { rateInterval, range }: Windows): string {
  return text.replaceAll('$__rate_interval', rateInterval).replaceAll('$__range', range)
}

/** Names the window as the author wrote it. */
function originalWindow(window: string): string {
  if (window === markers.rateInterval) return '$__rate_interval'
  return window === markers.range ? '$__range' : window
}

export function readExpression(source: string): Expression {
  const text = withWindows(source, markers)
  const selectors: Selector[] = []
  const groups: { labels: string[]; from: number; to: number }[] = []
  const places: number[] = []
  let valid = true
  parser.parse(text).iterate({
    enter(reference) {
      const { node } = reference
      if (node.type.isError) valid = false
      if (node.name === 'VectorSelector') {
        selectors.push(readSelector(node, text))
        places.push(node.from)
      }
      if (node.name === 'GroupingLabels') {
        const whole = around(node, ['AggregateExpr', 'BinaryExpr']) ?? node
        groups.push({ labels: labelNames(node, text), from: whole.from, to: whole.to })
      }
    },
  })
  return {
    text: source,
    valid,
    selectors,
    groups: groups.map(({ labels, from, to }) => ({
      labels,
      selectors: selectors.filter((_, index) => {
        const place = places[index] ?? -1
        return place >= from && place < to
      }),
    })),
  }
}

function readSelector(node: SyntaxNode, text: string): Selector {
  const matchers: LabelMatcher[] = []
  for (const matcher of node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? []) {
    matchers.push({
      label: textOf(matcher.getChild('LabelName'), text),
      operator: textOf(matcher.getChild('MatchOp'), text),
      value: textOf(matcher.getChild('StringLiteral'), text).slice(1, -1),
    })
  }
  const duration =
    node.parent?.name === 'MatrixSelector' ? node.parent.getChild('DurationExpr') : null
  return {
    text: textOf(node, text),
    metric: textOf(node.getChild('Identifier'), text),
    matchers,
    functions: functionsAround(node, text),
    ...(duration === null ? {} : { window: originalWindow(textOf(duration, text)) }),
  }
}

function functionsAround(node: SyntaxNode, text: string): string[] {
  const names: string[] = []
  for (let at = node.parent; at !== null; at = at.parent) {
    if (at.name === 'FunctionCall') names.push(textOf(at.getChild('FunctionIdentifier'), text))
  }
  return names
}

function around(node: SyntaxNode, names: readonly string[]): SyntaxNode | null {
  let at = node.parent
  while (at !== null && !names.includes(at.name)) at = at.parent
  return at
}

function labelNames(node: SyntaxNode, text: string): string[] {
  return node.getChildren('LabelName').map((label) => textOf(label, text))
}

function textOf(node: SyntaxNode | null, text: string): string {
  return node === null ? '' : text.slice(node.from, node.to)
}
