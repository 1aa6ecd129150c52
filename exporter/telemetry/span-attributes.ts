/**
 * A request's summary as span attributes.
 *
 * NaN is no value that every receiver can hold, so a layer without a value is left out of an array,
 * and the layers that are in it are named beside it. No more than `attributesMax` attributes are
 * made; the caller's own come last, after ours, and never replace one of ours.
 */

import type { Attributes } from '@opentelemetry/api'
import { skewMicros, windowOf } from '../../collector/contexts.ts'
import type { Finding, PhaseSummary, RequestSummary } from '../../collector/records.ts'
import { findingText } from '../finding-text.ts'
import { spanLimits } from './limits.ts'
import { spanAttributes as names, statisticOrder } from './span-registry.ts'

/** Attributes of the `ring2 request` span, the most telling ones first. */
export function requestAttributes(summary: RequestSummary, tensorsUrl: string): Attributes {
  const attributes: Attributes = {
    [names.model]: shorten(summary.model.name),
    [names.requestId]: shorten(summary.request.requestId),
    [names.verdict]: summary.verdict,
    [names.anomaly]: summary.findings.length > 0,
    [names.baseline]: summary.baseline,
    ...missingAttributes(summary),
    [names.completeness]: summary.completeness.state,
    [names.recordsExpected]: summary.completeness.expected,
    [names.recordsSeen]: summary.completeness.seen,
    [names.tokensTotal]: summary.tokens,
    [names.tokensPrompt]: summary.promptTokens,
    [names.steps]: summary.steps,
    ...nonfiniteAttributes(summary),
    [names.tensorsUrl]: tensorsUrl,
    [names.tensorsRows]: summary.tensorsStored,
    [names.tensorsSize]: summary.bytesStored,
    [names.engine]: shorten(summary.model.engine),
    [names.segment]: summary.producer.segment,
    [names.traceOrigin]: summary.request.traceOrigin,
    ...contextAttributes(summary),
  }
  addStatistics(attributes, summary)
  addCallerAttributes(attributes, summary)
  return attributes
}

/** What is to be said of the trace context: nothing, when all is well. */
function contextAttributes(summary: RequestSummary): Attributes {
  const { contextFault, parentWindow, startedAtMicros } = summary.request
  const skew = parentWindow === undefined ? 0 : skewMicros(windowOf(summary), parentWindow)
  return {
    ...(contextFault === undefined ? {} : { [names.contextFault]: contextFault }),
    ...(skew === 0
      ? {}
      : {
          [names.clockSkew]: skew / 1e6,
          [names.clockStart]: startedAtMicros,
          [names.clockEnd]: summary.endedAtMicros,
        }),
  }
}

/** Attributes of a `ring2 prefill` or `ring2 decode` span. */
export function phaseAttributes(summary: RequestSummary, phase: PhaseSummary): Attributes {
  return {
    [names.model]: shorten(summary.model.name),
    [names.requestId]: shorten(summary.request.requestId),
    [names.phase]: phase.phase,
    [names.tokenStart]: phase.tokenStart,
    [names.tokenEnd]: phase.tokenEnd,
    [names.steps]: phase.steps,
  }
}

function missingAttributes(summary: RequestSummary): Attributes {
  const { missingEvidence } = summary
  return missingEvidence.length === 0 ? {} : { [names.missingEvidence]: listed(missingEvidence) }
}

export function findingAttributes(finding: Finding): Attributes {
  return {
    [names.findingVerdict]: finding.verdict,
    [names.findingStatistic]: finding.statistic,
    [names.findingValue]: finding.value,
    [names.findingBound]: finding.bound,
    [names.findingDirection]: finding.direction,
    ...(finding.layer === null ? {} : { [names.findingLayer]: finding.layer }),
    ...(finding.phase === undefined ? {} : { [names.phase]: finding.phase }),
  }
}

export function evaluationAttributes(summary: RequestSummary): Attributes {
  const reasons = [...summary.findings.map(findingText), ...summary.missingEvidence]
  return {
    [names.evaluationName]: names.verdict,
    [names.evaluationLabel]: summary.verdict,
    ...(reasons.length === 0
      ? {}
      : { [names.evaluationExplanation]: shorten(listed(reasons).join('; ')) }),
  }
}

export function nonfiniteAttributes(summary: RequestSummary): Attributes {
  return {
    [names.nan]: summary.nan,
    [names.positiveInfinity]: summary.posInf,
    [names.negativeInfinity]: summary.negInf,
  }
}

export function incompleteAttributes(summary: RequestSummary): Attributes {
  const { reasons, expected, seen } = summary.completeness
  return {
    [names.reasons]: listed(reasons),
    [names.recordsExpected]: expected,
    [names.recordsSeen]: seen,
  }
}

/** As many reasons as a span carries, and how many more there are. */
function listed(reasons: readonly string[]): string[] {
  const shown = reasons.slice(0, spanLimits.reasonsMax).map(shorten)
  const more = reasons.length - shown.length
  return more > 0 ? [...shown, `and ${more} more`] : shown
}

/** One statistic, of one hook, ready to be put on a span. */
interface Statistic {
  readonly hook: string
  readonly name: string
  /** Attributes that it needs, in order. */
  readonly attributes: readonly (readonly [string, number | number[]])[]
}

function addStatistics(attributes: Attributes, summary: RequestSummary): void {
  const statistics = [...globalStatistics(summary), ...layerStatistics(summary)]
  const rank = (statistic: Statistic): number => {
    const place = statisticOrder.indexOf(statistic.name)
    return place < 0 ? statisticOrder.length : place
  }
  statistics.sort((a, b) => rank(a) - rank(b))
  let used = Object.keys(attributes).length
  for (const { attributes: needed } of statistics) {
    const added = needed.filter(([name]) => !(name in attributes))
    // A statistic without its layers would be misread, so it goes on whole or not at all.
    if (used + added.length > spanLimits.attributesMax) continue
    for (const [name, value] of added) attributes[name] = value
    used += added.length
  }
}

function globalStatistics(summary: RequestSummary): Statistic[] {
  return Object.entries(summary.globals)
    .filter(([, value]) => Number.isFinite(value))
    .map(([key, value]) => ({ ...splitKey(key), attributes: [[`ring2.${key}`, value]] }))
}

function layerStatistics(summary: RequestSummary): Statistic[] {
  const present = Object.entries(summary.layerSeries)
    .map(([key, series]) => ({ key, ...splitKey(key), series, layers: layersOf(series) }))
    .filter(({ layers }) => layers.length > 0)
  const layersByHook = new Map<string, number[]>()
  for (const { hook, layers } of present) {
    layersByHook.set(hook, union(layersByHook.get(hook) ?? [], layers))
  }
  return present.map(({ key, hook, name, series, layers }) => {
    const hookLayers = layersByHook.get(hook) ?? layers
    const values = layers.map((layer) => series[layer] ?? Number.NaN)
    const needed: [string, number[]][] = [
      [`ring2.${hook}.layers`, hookLayers],
      [`ring2.${key}`, values],
    ]
    if (layers.length !== hookLayers.length) needed.push([`ring2.${key}.layers`, layers])
    return { hook, name, attributes: needed }
  })
}

function layersOf(series: readonly (number | null)[]): number[] {
  return series.flatMap((value, layer) => (value !== null && Number.isFinite(value) ? [layer] : []))
}

function union(a: readonly number[], b: readonly number[]): number[] {
  return [...new Set([...a, ...b])].sort((left, right) => left - right)
}

/** `resid_pre.l2_mean` → hook and statistic; hooks have no dot. */
function splitKey(key: string): { hook: string; name: string } {
  const dot = key.indexOf('.')
  return { hook: key.slice(0, dot), name: key.slice(dot + 1) }
}

function addCallerAttributes(attributes: Attributes, summary: RequestSummary): void {
  const own = Object.entries(summary.request.attributes).slice(0, spanLimits.requestAttributesMax)
  let used = Object.keys(attributes).length
  for (const [name, value] of own) {
    if (name === '' || name in attributes || used >= spanLimits.attributesMax) continue
    if (typeof value === 'number' && !Number.isFinite(value)) continue
    attributes[name] = typeof value === 'string' ? shorten(value) : value
    used += 1
  }
}

function shorten(text: string): string {
  const { textCharactersMax } = spanLimits
  return text.length > textCharactersMax ? `${text.slice(0, textCharactersMax)}…` : text
}
