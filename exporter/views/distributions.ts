/**
 * What stored logits say of each token: the distribution at the position before is the one that the
 * token was drawn from.
 *
 * A row of one position has its statistics in columns, measured at capture over all bytes; rows of
 * several positions have means there, so each is computed from the payload. A mean over several
 * positions never stands for one of them.
 */

import { rowSoftmaxes } from '../../collector/index.ts'
import { Ring2Error } from '../errors.ts'
import { viewLimits } from '../limits.ts'
import { unite } from '../tensors/ranges.ts'
import type { TensorReader } from '../tensors/reader.ts'
import type { TensorRecord } from '../tensors/records.ts'
import { GLOBAL_LAYER, type TokenRange } from '../tensors/selection.ts'
import { overlaps, seriesOf, tensorQuery, type ViewScope } from './scope.ts'

export interface TokenFacts {
  readonly entropy: number | null
  readonly confidence: number | null
  readonly margin: number | null
  readonly surprisal: number | null
  /** Whether the row of logits itself is stored. */
  readonly stored: boolean
}

/** Facts by the token's position; left out are tokens whose distribution is not stored. */
export async function readDistributions(
  reader: TensorReader,
  scope: ViewScope,
  page: TokenRange,
  ids: ReadonlyMap<number, number>,
): Promise<Map<number, TokenFacts>> {
  const before = { start: Math.max(0, page.start - 1), end: page.end - 1 }
  const near = seriesOf(scope, 'final_logits').filter((one) => overlaps(one, before))
  if (near.length === 0 || before.start >= before.end) return new Map()
  const rows = await positionRows(reader, scope, 'final_logits', before)
  const surprisals = await columnSurprisals(reader, scope, page)
  const facts = new Map<number, TokenFacts>()
  const fromPayload: number[] = []
  for (const [position, row] of rows) {
    const token = position + 1
    const known = columnFacts(row, surprisals.get(token) ?? null)
    if (known !== null) facts.set(token, known)
    // An id that is known has a surprisal, which not every row of token_ids has in a column.
    const enough = known !== null && (known.surprisal !== null || !ids.has(token))
    if (!enough && row.data_bytes > 0) fromPayload.push(position)
  }
  await computeFacts(reader, scope, fromPayload, { rows, ids, facts })
  return facts
}

/** The row of the latest step for each position of the range. */
export async function positionRows(
  reader: TensorReader,
  scope: ViewScope,
  hook: string,
  range: TokenRange,
): Promise<Map<number, TensorRecord>> {
  const { traceId, requestId, producer } = scope.query
  const rows = await reader.list({ traceId, requestId, producer, hook, layer: GLOBAL_LAYER })
  const ordered = rows.toSorted((left, right) => left.step - right.step)
  const byPosition = new Map<number, TensorRecord>()
  for (const row of ordered) {
    const first = row.token_end - (row.shape[0] ?? 0)
    const end = Math.min(row.token_end, range.end)
    for (let at = Math.max(first, range.start); at < end; at += 1) byPosition.set(at, row)
  }
  return byPosition
}

/**
 * Surprisals by the token's position. A row of token_ids has that of the first token that the step
 * before had not seen; with a single token, it is that one's.
 */
async function columnSurprisals(
  reader: TensorReader,
  scope: ViewScope,
  page: TokenRange,
): Promise<Map<number, number>> {
  const near = seriesOf(scope, 'token_ids').filter((one) => overlaps(one, page))
  if (near.length === 0) return new Map()
  const rows = await positionRows(reader, scope, 'token_ids', page)
  const surprisals = new Map<number, number>()
  for (const [position, row] of rows) {
    if (row.surprisal_mean === null || row.shape[0] !== 1) continue
    if (row.token_end - row.token_start === 1) surprisals.set(position, row.surprisal_mean)
  }
  return surprisals
}

function columnFacts(row: TensorRecord, surprisal: number | null): TokenFacts | null {
  if (row.shape[0] !== 1 || row.entropy_mean === null) return null
  // Rows of earlier versions have the entropy and not the other two.
  if (row.top1_probability_mean === null) return null
  return {
    entropy: row.entropy_mean,
    confidence: row.top1_probability_mean,
    margin: row.margin_mean,
    surprisal,
    stored: row.data_bytes > 0,
  }
}

interface Work {
  readonly rows: ReadonlyMap<number, TensorRecord>
  readonly ids: ReadonlyMap<number, number>
  readonly facts: Map<number, TokenFacts>
}

async function computeFacts(
  reader: TensorReader,
  scope: ViewScope,
  positions: readonly number[],
  work: Work,
): Promise<void> {
  const bytes = positions.reduce((sum, at) => sum + rowBytes(work.rows.get(at)), 0)
  if (bytes > viewLimits.logitsBytesMax) {
    const most = Math.floor((positions.length * viewLimits.logitsBytesMax) / bytes)
    throw new Ring2Error('RING2_E_TOO_LARGE', {
      expected: `at most ${viewLimits.logitsBytesMax} bytes of logits for one page`,
      actual: `${bytes} bytes`,
      action: `Ask for fewer tokens at once (limit=${Math.max(1, most)}).`,
    })
  }
  const each = Math.max(1, ...positions.map((at) => rowBytes(work.rows.get(at))))
  const count = Math.max(1, Math.floor(viewLimits.logitsChunkBytes / each))
  for (const { start, end } of unite(positions.map((at) => ({ start: at, end: at + 1 })))) {
    for (let from = start; from < end; from += count) {
      await computeChunk(reader, scope, { start: from, end: Math.min(end, from + count) }, work)
    }
  }
}

/** Bytes of one position. */
function rowBytes(row: TensorRecord | undefined): number {
  return row === undefined ? 0 : row.data_bytes / Math.max(1, row.shape[0] ?? 1)
}

async function computeChunk(
  reader: TensorReader,
  scope: ViewScope,
  range: TokenRange,
  { ids, facts }: Work,
): Promise<void> {
  const opened = await reader.open(tensorQuery(scope, 'final_logits', GLOBAL_LAYER, range))
  const { plan } = opened
  const positions = plan.tokens.flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  )
  const labels = Float64Array.from(positions, (position) => ids.get(position + 1) ?? -1)
  const elements = { dtype: plan.dtype.name, data: await opened.read() }
  const softmaxes = await rowSoftmaxes(elements, labels, plan.shape[1] ?? 0)
  for (const [index, position] of positions.entries()) {
    const softmax = softmaxes[index]
    if (softmax === undefined) continue
    facts.set(position + 1, {
      entropy: softmax.entropy,
      confidence: softmax.top1Probability,
      margin: softmax.margin,
      surprisal: softmax.surprisal,
      stored: true,
    })
  }
}
