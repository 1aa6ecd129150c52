/**
 * From a question to the series that answer it: unknown traces and tensors, several requests of one
 * trace, several ranks of one tensor. Reads the catalogue only.
 */

import { type HookShape, hooks } from '../../collector/hooks.gen.ts'
import { Ring2Error } from '../errors.ts'
import type { Catalog, CatalogSeries } from './catalog.ts'
import { rangesText, unite } from './ranges.ts'
import type { RankFilter, TensorQuery, TokenRange } from './selection.ts'

const NAMED_MAX = 20

/**
 * Series of one request and one rank, limited to files that may hold the tokens asked for.
 * Never empty: throws what the user has to know instead.
 */
export function chooseSeries(catalog: Catalog, query: TensorQuery): CatalogSeries[] {
  const all = catalog.series({ traceId: query.traceId, hook: query.hook, layer: query.layer })
  if (all.length === 0) throw unknownTensor(catalog, query)
  const ofRequest = chooseRequest(all, query)
  const ofRank = chooseRank(ofRequest, query)
  const { tokens } = query
  if (tokens === null) return ofRank
  const near = ofRank.filter((one) => one.token_end > tokens.start && one.token_start < tokens.end)
  if (near.length > 0) return near
  const held = unite(ofRank.map((one) => ({ start: one.token_start, end: one.token_end })))
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `tokens within ${rangesText(held)}`,
    actual: `tokens=${tokens.start}:${tokens.end}`,
  })
}

function chooseRequest(all: readonly CatalogSeries[], query: TensorQuery): CatalogSeries[] {
  const ids = [...new Set(all.map((one) => one.request_id))]
  if (query.requestId !== null) {
    const chosen = all.filter((one) => one.request_id === query.requestId)
    if (chosen.length > 0) return chosen
    throw new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
      expected: `a request_id with this tensor: ${named(ids)}`,
      actual: JSON.stringify(query.requestId),
    })
  }
  if (ids.length === 1) return [...all]
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `request_id, as the trace has ${ids.length} requests: ${named(ids)}`,
    actual: 'no request_id',
  })
}

function chooseRank(all: readonly CatalogSeries[], query: TensorQuery): CatalogSeries[] {
  const fitting = all.filter((one) => fits(one, query.rank))
  const ranks = [...new Set(fitting.map(rankText))].sort()
  const [lowest] = ranks
  if (lowest === undefined) {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: `one of the ranks ${[...new Set(all.map(rankText))].sort().join('; ')}`,
      actual: JSON.stringify(query.rank),
    })
  }
  if (ranks.length === 1) return fitting
  // Of a tensor that is not sharded every rank holds the same values: any one is the answer.
  const sharded = hooks.find((one) => one.name === query.hook)?.sharded ?? true
  if (!sharded) return fitting.filter((one) => rankText(one) === lowest)
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `rank, as ${query.hook} is sharded over ${ranks.join('; ')}`,
    actual: query.rank === null ? 'no rank' : JSON.stringify(query.rank),
  })
}

function fits(series: CatalogSeries, rank: RankFilter | null): boolean {
  if (rank === null) return true
  return (
    (rank.tp ?? series.tp_rank) === series.tp_rank &&
    (rank.pp ?? series.pp_rank) === series.pp_rank &&
    (rank.dp ?? series.dp_rank) === series.dp_rank &&
    (rank.ep ?? series.ep_rank) === series.ep_rank
  )
}

function rankText(series: CatalogSeries): string {
  return `tp:${series.tp_rank},pp:${series.pp_rank},dp:${series.dp_rank},ep:${series.ep_rank}`
}

/** The error for a trace the store has never heard of. */
export function unknownTrace(traceId: string): Ring2Error {
  return new Ring2Error('RING2_E_TRACE_UNKNOWN', {
    expected: 'a trace id of the store',
    actual: traceId,
  })
}

function unknownTensor(catalog: Catalog, query: TensorQuery): Ring2Error {
  const held = catalog.series({ traceId: query.traceId })
  if (held.length === 0 && catalog.requests(query.traceId).length === 0) {
    return unknownTrace(query.traceId)
  }
  const layers = held.filter((one) => one.hook === query.hook).map((one) => one.layer)
  const hooksHeld = [...new Set(held.map((one) => one.hook))]
  const known =
    layers.length > 0
      ? `a layer of ${query.hook}: ${named([...new Set(layers)].map(String))}`
      : `a hook of this trace: ${named(hooksHeld) || 'it has no tensors'}`
  return new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
    expected: known,
    actual: `${query.hook}, layer ${query.layer}`,
  })
}

function named(names: readonly string[]): string {
  const shown = names.slice(0, NAMED_MAX).join(', ')
  return names.length > NAMED_MAX ? `${shown}, …` : shown
}

/**
 * Token positions that a complete tensor has; null while no summary has come. Hooks of shape
 * `request` (logits) owe one row per step: of a prefill its last position, whatever else is there.
 */
export function expectedRanges(
  catalog: Catalog,
  traceId: string,
  requestId: string,
  shape: HookShape,
): TokenRange[] | null {
  const ranges: TokenRange[] = []
  let known = false
  for (const request of catalog.requests(traceId)) {
    if (request.request_id !== requestId || request.summary === null) continue
    known = true
    ranges.push(...phaseRanges(request.summary, shape))
  }
  return known ? unite(ranges) : null
}

function phaseRanges(summary: string, shape: HookShape): TokenRange[] {
  const parsed: unknown = JSON.parse(summary)
  if (typeof parsed !== 'object' || parsed === null || !('phases' in parsed)) return []
  const phases: unknown = parsed.phases
  if (!Array.isArray(phases)) return []
  return phases.map((phase) => {
    const end = Number(phase?.tokenEnd ?? 0)
    const start = Number(phase?.tokenStart ?? 0)
    const lastOnly = shape === 'request' && phase?.phase === 'prefill'
    return { start: lastOnly ? Math.max(start, end - 1) : start, end }
  })
}
