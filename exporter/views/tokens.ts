/**
 * The view of tokens: ids, texts, and what the model's distributions said of each. Values come from
 * what is stored; what is not there is null, with the reason in words.
 */

import type { Phase, RequestSummary } from '../../collector/records.ts'
import type { CatalogSeries } from '../catalog/catalog.ts'
import { Ring2Error } from '../errors.ts'
import type { Dtype } from '../tensors/dtypes.ts'
import { clip, unite } from '../tensors/ranges.ts'
import type { TensorReader } from '../tensors/reader.ts'
import type { TensorRecord } from '../tensors/records.ts'
import { GLOBAL_LAYER, type TokenRange } from '../tensors/selection.ts'
import { positionRows, readDistributions, type TokenFacts } from './distributions.ts'
import { shown } from './numbers.ts'
import { overlaps, seriesOf, tensorQuery, tokenEnd, type ViewScope } from './scope.ts'
import type { Vocabulary } from './vocabulary.ts'

export const TOKEN_IDS = 'token_ids'
export const LOGITS = 'final_logits'

export interface TokensQuery {
  readonly start: number
  readonly limit: number
}

export interface TokenView {
  readonly position: number
  readonly id: number | null
  readonly text: string | null
  readonly phase: Phase
  readonly entropy: number | null
  readonly surprisal: number | null
  readonly confidence: number | null
  readonly margin: number | null
  readonly has_alternatives: boolean
}

export interface TokensView {
  readonly model: string
  readonly prompt_tokens: number | null
  readonly total: number
  readonly start: number
  readonly vocabulary: 'known' | 'unknown'
  /** In words, what is not there and why. */
  readonly missing: readonly string[]
  readonly tokens: readonly TokenView[]
}

/** The series that the view comes from. */
export function tokensSeries(scope: ViewScope): CatalogSeries[] {
  return [...seriesOf(scope, TOKEN_IDS), ...seriesOf(scope, LOGITS)]
}

export async function tokensView(
  reader: TensorReader,
  scope: ViewScope,
  query: TokensQuery,
  vocabulary: Vocabulary | null,
): Promise<TokensView> {
  const { request } = scope
  const total = Math.max(tokenEnd(scope.series), request.tokens ?? 0)
  const page = { start: query.start, end: Math.min(total, query.start + query.limit) }
  const positions = Array.from(
    { length: Math.max(0, page.end - page.start) },
    (_, index) => page.start + index,
  )
  const stored = await readTokenIds(reader, scope, page)
  const ids = stored ?? new Map<number, number>()
  const facts = await readDistributions(reader, scope, page, ids)
  const phaseOf = await phases(reader, scope)
  const tokens = positions.map((position): TokenView => {
    const id = ids.get(position) ?? null
    const fact = facts.get(position)
    return {
      position,
      id,
      text: id === null ? null : (vocabulary?.text(id) ?? null),
      phase: phaseOf(position),
      entropy: shown(fact?.entropy),
      surprisal: shown(fact?.surprisal),
      confidence: shown(fact?.confidence),
      margin: shown(fact?.margin),
      has_alternatives: fact?.stored ?? false,
    }
  })
  return {
    model: request.model,
    prompt_tokens: request.prompt_tokens,
    total,
    start: query.start,
    vocabulary: vocabulary === null ? 'unknown' : 'known',
    missing: missingOf(scope, page, tokens, facts, vocabulary, stored === null),
    tokens,
  }
}

/** Ids by position; positions whose ids are not stored are left out. Null: they are redacted. */
export async function readTokenIds(
  reader: TensorReader,
  scope: ViewScope,
  range: TokenRange,
): Promise<Map<number, number> | null> {
  const ids = new Map<number, number>()
  const near = seriesOf(scope, TOKEN_IDS).filter((one) => overlaps(one, range))
  if (near.length === 0 || range.start >= range.end) return ids
  const read = await readOr(reader, scope, range)
  if (read === 'nothing') return ids
  if (read === 'redacted') return null
  const { opened, data } = read
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  let at = 0
  for (const { start, end } of opened.plan.tokens) {
    for (let position = start; position < end; position += 1) {
      const id = idAt(view, at, opened.plan.dtype)
      if (id !== null) ids.set(position, id)
      at += opened.plan.dtype.bytes
    }
  }
  return ids
}

/** `redacted`: the payload of a row was left out when it was stored. `nothing`: no row is of the range. */
async function readOr(reader: TensorReader, scope: ViewScope, range: TokenRange) {
  try {
    const opened = await reader.open(tensorQuery(scope, TOKEN_IDS, GLOBAL_LAYER, range))
    return { opened, data: await opened.read() }
  } catch (error) {
    if (error instanceof Ring2Error && error.code === 'RING2_E_REDACTED') return 'redacted'
    // A series may have gaps, and a range may lie within one.
    if ((await positionRows(reader, scope, TOKEN_IDS, range)).size === 0) return 'nothing'
    throw error
  }
}

function whyNoTexts({ request }: ViewScope): string {
  if (request.summary === null) return 'the vocabulary is known once the request has ended'
  const { model }: RequestSummary = JSON.parse(request.summary)
  if (model.vocabularyFingerprint === undefined) {
    return 'no vocabulary came with the model; ring2.attach sends it when it is given a tokenizer'
  }
  return 'not every part of the vocabulary is stored here'
}

function idAt(view: DataView, at: number, dtype: Dtype): number | null {
  const id = Number(dtype.read(view, at))
  return Number.isSafeInteger(id) && id >= 0 ? id : null
}

/** The phase of each position: by the summary, or while there is none by the rows that are stored. */
async function phases(reader: TensorReader, scope: ViewScope): Promise<(at: number) => Phase> {
  const { summary } = scope.request
  if (summary !== null) {
    const parsed: RequestSummary = JSON.parse(summary)
    const prefill = parsed.phases.find((one) => one.phase === 'prefill')
    const end = prefill?.tokenEnd ?? 0
    return (position) => (position < end ? 'prefill' : 'decode')
  }
  const rows = await anyRows(reader, scope)
  const end = rows
    .filter((row) => row.phase === 'prefill')
    .reduce((most, row) => Math.max(most, row.token_end), 0)
  return (position) => (position < end ? 'prefill' : 'decode')
}

async function anyRows(reader: TensorReader, scope: ViewScope): Promise<readonly TensorRecord[]> {
  const one = seriesOf(scope, TOKEN_IDS)[0] ?? seriesOf(scope, LOGITS)[0] ?? scope.series[0]
  if (one === undefined) return []
  const { traceId, requestId, producer } = scope.query
  return await reader.list({ traceId, requestId, producer, hook: one.hook, layer: one.layer })
}

function missingOf(
  scope: ViewScope,
  page: TokenRange,
  tokens: readonly TokenView[],
  facts: ReadonlyMap<number, TokenFacts>,
  vocabulary: Vocabulary | null,
  redacted: boolean,
): string[] {
  const reasons: string[] = []
  const without = (test: (token: TokenView) => boolean) =>
    unite(tokens.filter(test).map(({ position }) => ({ start: position, end: position + 1 })))
  const noIds = without((token) => token.id === null)
  if (seriesOf(scope, TOKEN_IDS).length === 0) {
    reasons.push('Token ids and texts: the hook token_ids of this request is not stored.')
  } else if (redacted) {
    reasons.push('Token ids and texts: the hook token_ids is redacted (capture.redact_hooks).')
  } else if (noIds.length > 0) {
    reasons.push(`Token ids of ${positionsText(noIds)}: no row of token_ids has them.`)
  }
  // Without ids no vocabulary would help.
  const hasIds = seriesOf(scope, TOKEN_IDS).length > 0 && !redacted
  if (vocabulary === null && hasIds) reasons.push(`Texts: ${whyNoTexts(scope)}.`)
  const distributions = 'Entropy, surprisal, confidence, margin and alternatives'
  if (seriesOf(scope, LOGITS).length === 0) {
    reasons.push(`${distributions}: the hook final_logits of this request is not stored.`)
    return reasons
  }
  // The first token of a request is drawn from no distribution.
  const after = clip([{ start: 1, end: Math.max(1, page.end) }], page)
  const noRow = after.flatMap((range) =>
    without(({ position }) => position >= range.start && !facts.has(position)),
  )
  if (noRow.length > 0) {
    reasons.push(
      `${distributions} of ${positionsText(noRow)}: no logits of the position before ` +
        'are stored; most prefills compute those of the last prompt token alone.',
    )
  }
  const withheld = without(({ position }) => facts.get(position)?.stored === false)
  if (withheld.length > 0) {
    reasons.push(`Alternatives of ${positionsText(withheld)}: the hook final_logits is redacted.`)
  }
  const unlabelled = without(
    (token) => token.surprisal === null && token.id === null && facts.has(token.position),
  )
  if (unlabelled.length > 0) {
    reasons.push(`Surprisal of ${positionsText(unlabelled)}: their ids are not known.`)
  }
  return reasons
}

/** As a reader says it: both ends of a range are among what is meant. */
function positionsText(ranges: readonly TokenRange[]): string {
  const texts = ranges.map(({ start, end }) =>
    end - start === 1 ? String(start) : `${start} to ${end - 1}`,
  )
  const [only] = ranges
  const single = ranges.length === 1 && only !== undefined && only.end - only.start === 1
  return `position${single ? '' : 's'} ${texts.join(', ')}`
}
