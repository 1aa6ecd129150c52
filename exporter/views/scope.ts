/**
 * Whose tensors a view shows: one request of a trace, and what the catalogue knows of its tensors.
 *
 * Reads the catalogue only. Several requests, or several models under one request, are the same
 * errors as for a tensor; several producers of one hook are found by the reader.
 */

import { createHash } from 'node:crypto'
import type { Catalog, CatalogSeries } from '../catalog/catalog.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import { producersMeant } from '../catalog/parallel.ts'
import { Ring2Error } from '../errors.ts'
import type { TensorQuery, TokenRange } from '../tensors/selection.ts'
import { unknownTrace } from '../tensors/series-choice.ts'

const NAMED_MAX = 20

/** What a caller asks for; null is not said. */
export interface ScopeQuery {
  readonly traceId: string
  readonly requestId: string | null
  readonly producer: string | null
}

export interface ViewScope {
  readonly query: ScopeQuery
  readonly request: CatalogRequest
  /** Every stored series of the request, and of the producer when one is asked for. */
  readonly series: readonly CatalogSeries[]
}

/** @throws Ring2Error for an unknown trace, and where the request is not one. */
export function openScope(catalog: Catalog, query: ScopeQuery): ViewScope {
  const all = catalog.requests(query.traceId)
  if (all.length === 0) throw unknownTrace(query.traceId)
  const ofRequest = choose(all, 'request_id', query.requestId)
  const chosen = query.producer === null ? ofRequest : choose(ofRequest, 'producer', query.producer)
  const [request] = chosen
  if (request === undefined) throw unknownTrace(query.traceId)
  if (new Set(chosen.map((one) => one.model)).size > 1) {
    const texts = chosen.map((one) => `${one.producer} (model ${one.model})`)
    throw new Ring2Error('RING2_E_QUERY', {
      expected: `producer, as ${chosen.length} models have this request: ${named(texts)}`,
      actual: 'no producer',
    })
  }
  const ofAll = catalog.series({ traceId: query.traceId, requestId: request.request_id })
  const meant = query.producer === null ? null : producersMeant(all, query.producer)
  const series = ofAll.filter((one) => meant?.has(one.producer) ?? true)
  return { query: { ...query, requestId: request.request_id }, request, series }
}

function choose(
  all: readonly CatalogRequest[],
  field: 'request_id' | 'producer',
  wanted: string | null,
): CatalogRequest[] {
  const values = [...new Set(all.map((one) => one[field]))]
  if (wanted === null && values.length === 1) return [...all]
  if (wanted === null) {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: `${field}, as the trace has ${values.length} requests: ${named(values)}`,
      actual: `no ${field}`,
    })
  }
  const chosen = all.filter((one) => one[field] === wanted)
  if (chosen.length > 0) return chosen
  throw new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
    expected: `a ${field} of this trace: ${named(values)}`,
    actual: JSON.stringify(wanted),
  })
}

export function named(names: readonly string[]): string {
  const shown = names.slice(0, NAMED_MAX).join(', ')
  return names.length > NAMED_MAX ? `${shown}, …` : shown
}

/** Series of one hook, and of one layer when it is given. */
export function seriesOf(scope: ViewScope, hook: string, layer?: number): CatalogSeries[] {
  return scope.series.filter(
    (one) => one.hook === hook && (layer === undefined || one.layer === layer),
  )
}

/** The error for a hook or layer that the request has no tensor of. */
export function unknownTensor(scope: ViewScope, hook: string, layer: number | null): Ring2Error {
  const layers = [...new Set(seriesOf(scope, hook).map((one) => one.layer))]
  const held = [...new Set(scope.series.map((one) => one.hook))]
  return new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
    expected:
      layers.length > 0
        ? `a layer of ${hook}: ${named(layers.map(String))}`
        : `a hook of this request: ${named(held) || 'it has no tensors'}`,
    actual: layer === null ? hook : `${hook}, layer ${layer}`,
  })
}

/** The question to the reader for one tensor of the scope. */
export function tensorQuery(
  scope: ViewScope,
  hook: string,
  layer: number,
  tokens: TokenRange | null,
  heads: readonly number[] | null = null,
): TensorQuery {
  const { traceId, requestId, producer } = scope.query
  return { traceId, requestId, producer, hook, layer, rank: null, tokens, heads }
}

/** One past the last token position that any of the series holds. */
export function tokenEnd(series: readonly CatalogSeries[]): number {
  return series.reduce((end, one) => Math.max(end, one.token_end), 0)
}

/** The asked range within [0, end); everything when none is asked for. */
export function clampRange(asked: TokenRange | null, end: number, name: string): TokenRange {
  if (asked === null) return { start: 0, end }
  if (asked.start < end) return { start: asked.start, end: Math.min(asked.end, end) }
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `${name} within 0:${end}`,
    actual: `${name}=${asked.start}:${asked.end}`,
  })
}

export function overlaps(one: CatalogSeries, range: TokenRange): boolean {
  return one.token_end > range.start && one.token_start < range.end
}

/**
 * Changes when an answer may: files are never changed, so the rows that it comes from name it, with
 * what else it depends on.
 */
export function fingerprintOf(series: readonly CatalogSeries[], ...rest: unknown[]): string {
  const rows = series.map((one) => [
    one.key,
    one.hook,
    one.layer,
    one.producer,
    one.row_start,
    one.row_end,
  ])
  return createHash('sha256')
    .update(JSON.stringify([rows, rest]))
    .digest('hex')
    .slice(0, 32)
}
