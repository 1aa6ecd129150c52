/**
 * From a question to the series that answer it: unknown traces and tensors, several requests of one
 * trace, several producers of one request, several ranks of one tensor. Reads the catalogue only.
 */

import { type HookShape, hooks } from '../../collector/hooks.gen.ts'
import { isReplica } from '../../collector/index.ts'
import type { RequestSummary } from '../../collector/records.ts'
import type { Catalog, CatalogSeries } from '../catalog/catalog.ts'
import { producersMeant, requestOf } from '../catalog/parallel.ts'
import { Ring2Error } from '../errors.ts'
import { rangesText, unite } from './ranges.ts'
import type { RankFilter, TensorQuery, TokenRange } from './selection.ts'

const NAMED_MAX = 20

/**
 * Series of one request and one producer, limited to files that may hold the tokens asked for: of one
 * rank, or of the ranks whose shards make the whole, which are then named in order.
 * Never empty: throws what the user has to know instead.
 */
export function chooseSeries(catalog: Catalog, query: TensorQuery): ChosenSeries {
  const all = catalog.series({ traceId: query.traceId, hook: query.hook, layer: query.layer })
  if (all.length === 0) throw unknownTensor(catalog, query)
  const ofRequest = chooseRequest(ofProducer(catalog, all, query), query)
  const fitting = fittingRanks(ofRequest, query)
  checkOneProducer(catalog, fitting)
  const shards = chooseShards(catalog, fitting, query)
  const ofRank =
    shards === null
      ? chooseRank(fitting, query)
      : fitting.filter((one) => shards.includes(one.tp_rank))
  return { shards, series: nearTokens(ofRank, query) }
}

export interface ChosenSeries {
  readonly series: readonly CatalogSeries[]
  /** Tensor-parallel ranks whose shards make the whole; null for the rows of one rank. */
  readonly shards: readonly number[] | null
}

function nearTokens(
  ofRank: readonly CatalogSeries[],
  { tokens }: TensorQuery,
): readonly CatalogSeries[] {
  if (tokens === null) return ofRank
  const near = ofRank.filter((one) => one.token_end > tokens.start && one.token_start < tokens.end)
  if (near.length > 0) return near
  const held = unite(ofRank.map((one) => ({ start: one.token_start, end: one.token_end })))
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `tokens within ${rangesText(held)}`,
    actual: `tokens=${tokens.start}:${tokens.end}`,
  })
}

function ofProducer(
  catalog: Catalog,
  all: readonly CatalogSeries[],
  query: TensorQuery,
): readonly CatalogSeries[] {
  const producer = query.producer ?? null
  if (producer === null) return all
  const meant = producersMeant(catalog.requests(query.traceId), producer)
  const chosen = all.filter((one) => meant.has(one.producer))
  if (chosen.length > 0) return chosen
  throw new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
    expected: `a producer with this tensor: ${named([...new Set(all.map((one) => one.producer))])}`,
    actual: JSON.stringify(producer),
  })
}

/**
 * Two models under one request are two tensors of one name. The producers of one model's ranks are
 * not: each holds ranks of its own, and the rank tells them apart.
 */
function checkOneProducer(catalog: Catalog, fitting: readonly CatalogSeries[]): void {
  const producers = [...new Set(fitting.map((one) => one.producer))].sort()
  const [first] = fitting
  if (first === undefined || producers.length === 1) return
  const requests = catalog.requests(first.trace_id)
  const models = new Map(
    producers.map((one) => [one, requestOf(requests, first.request_id, one)?.model]),
  )
  const ranks = new Set(fitting.map(rankText))
  const owners = new Set(fitting.map((one) => `${rankText(one)} ${one.producer}`))
  const modelsHeld = new Set(producers.map((one) => models.get(one)))
  if (owners.size === ranks.size && modelsHeld.size === 1) return
  const texts = producers.map((one) => `${one} (model ${models.get(one) ?? 'unknown'})`)
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `producer, as ${producers.length} producers have this tensor: ${named(texts)}`,
    actual: 'no producer',
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

function fittingRanks(all: readonly CatalogSeries[], query: TensorQuery): CatalogSeries[] {
  const fitting = all.filter((one) => fits(one, query.rank))
  if (fitting.length > 0) return fitting
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `one of the ranks ${[...new Set(all.map(rankText))].sort().join('; ')}`,
    actual: JSON.stringify(query.rank),
  })
}

function chooseRank(fitting: readonly CatalogSeries[], query: TensorQuery): CatalogSeries[] {
  const ranks = [...new Set(fitting.map(rankText))].sort()
  const [lowest] = ranks
  if (ranks.length === 1) return [...fitting]
  // Of a tensor that is not sharded every rank holds the same values: any one is the answer.
  const sharded = hooks.find((one) => one.name === query.hook)?.sharded ?? true
  if (!sharded) return fitting.filter((one) => rankText(one) === lowest)
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `rank, as ${query.hook} is sharded over ${ranks.join('; ')}`,
    actual: query.rank === null ? 'no rank' : JSON.stringify(query.rank),
  })
}

/**
 * The ranks whose shards make the tensor, once its request has ended; null where there is nothing to
 * join. A rank of which nothing is there is an error: part of a tensor must not look like all of it.
 */
function chooseShards(
  catalog: Catalog,
  fitting: readonly CatalogSeries[],
  query: TensorQuery,
): readonly number[] | null {
  const [first] = fitting
  const hook = hooks.find((one) => one.name === query.hook)
  if (first === undefined || hook?.sharded !== true || query.rank?.tp !== undefined) return null
  const others = new Set(fitting.map((one) => rankText({ ...one, tp_rank: 0 })))
  const requests = catalog.requests(first.trace_id)
  const text = requestOf(requests, first.request_id, first.producer)?.summary ?? null
  if (text === null || others.size > 1) return null
  const { model, parallel }: RequestSummary = JSON.parse(text)
  const world = parallel?.world.tp ?? model.shards ?? 1
  const asked = parallel === undefined ? null : (query.producer ?? null)
  if (world < 2 || (asked !== null && producersMeant(requests, asked).size === 1)) return null
  const ranks = Array.from({ length: world }, (_, tp) => tp).filter(
    (tp) => !isReplica(query.hook, tp, world, model.kvHeads),
  )
  const held = new Set(fitting.map((one) => one.tp_rank))
  const missing = ranks.filter((tp) => !held.has(tp))
  if (missing.length === 0) return ranks
  throw new Ring2Error('RING2_E_INCOMPLETE', {
    expected: `the shards of ${ranks.length} tensor-parallel ranks`,
    actual: `none of rank ${named(missing.map(String))}`,
    action: `Ask for one that is there (rank=${first.tp_rank}).`,
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

type RankColumns = Pick<CatalogSeries, 'tp_rank' | 'pp_rank' | 'dp_rank' | 'ep_rank'>

function rankText(series: RankColumns): string {
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
 * Token positions that a complete tensor of this producer has; null while no summary of it has come.
 * Hooks of shape `request` (logits) owe one row per step: of a prefill its last position, whatever
 * else is there.
 */
export function expectedRanges(
  catalog: Catalog,
  series: Pick<CatalogSeries, 'trace_id' | 'request_id' | 'producer'>,
  shape: HookShape,
): TokenRange[] | null {
  const requests = catalog.requests(series.trace_id)
  const request = requestOf(requests, series.request_id, series.producer)
  const summary = request?.summary ?? null
  return summary === null ? null : unite(phaseRanges(summary, shape))
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
