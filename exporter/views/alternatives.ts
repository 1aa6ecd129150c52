/**
 * What else could have come at a position: the most probable tokens of the stored row of logits of
 * the position before.
 */

import { topTokens } from '../../collector/index.ts'
import { Ring2Error } from '../errors.ts'
import { rangesText, unite } from '../tensors/ranges.ts'
import type { TensorReader } from '../tensors/reader.ts'
import { GLOBAL_LAYER } from '../tensors/selection.ts'
import { positionRows } from './distributions.ts'
import { shown } from './numbers.ts'
import { seriesOf, tensorQuery, unknownTensor, type ViewScope } from './scope.ts'
import { LOGITS, readTokenIds } from './tokens.ts'
import type { Vocabulary } from './vocabulary.ts'

export interface AlternativesView {
  readonly position: number
  readonly id: number | null
  readonly text: string | null
  readonly entropy: number | null
  readonly alternatives: readonly {
    readonly id: number
    readonly text: string | null
    readonly probability: number | null
    readonly logit: number | null
  }[]
  /** 0 is the most probable; null where the token's id is not known. */
  readonly chosen_rank: number | null
}

/** @throws Ring2Error RING2_E_TENSOR_UNKNOWN where no logits of the position before are stored. */
export async function alternativesView(
  reader: TensorReader,
  scope: ViewScope,
  query: { readonly position: number; readonly count: number },
  vocabulary: Vocabulary | null,
): Promise<AlternativesView> {
  const { position, count } = query
  const row = { start: position - 1, end: position }
  if (seriesOf(scope, LOGITS).length === 0) throw unknownTensor(scope, LOGITS, null)
  // A prefill's row says which tokens it saw, and holds the logits of the last ones alone.
  const rows = position < 1 ? null : await positionRows(reader, scope, LOGITS, row)
  if (rows === null || rows.size === 0) throw noLogits(scope, position)

  const opened = await reader.open(tensorQuery(scope, LOGITS, GLOBAL_LAYER, row))
  const width = opened.plan.shape[1] ?? 0
  const ids = await readTokenIds(reader, scope, { start: position, end: position + 1 })
  const id = ids?.get(position) ?? null
  const text = (one: number) => vocabulary?.text(one) ?? null
  const elements = { dtype: opened.plan.dtype.name, data: await opened.read() }
  const top = await topTokens(elements, width, Math.min(count, width), id)
  return {
    position,
    id,
    text: id === null ? null : text(id),
    entropy: shown(top?.entropy),
    alternatives: (top?.tokens ?? []).map((one) => ({
      id: one.id,
      text: text(one.id),
      probability: shown(one.probability),
      logit: shown(one.logit),
    })),
    chosen_rank: top === null || top.rank < 0 ? null : top.rank,
  }
}

function noLogits(scope: ViewScope, position: number): Ring2Error {
  const held = seriesOf(scope, LOGITS).map((one) => ({
    start: one.token_start + 1,
    end: one.token_end + 1,
  }))
  return new Ring2Error('RING2_E_TENSOR_UNKNOWN', {
    expected: `a position whose logits are stored, within ${rangesText(unite(held))}`,
    actual: `position ${position}`,
    action: 'GET …/tokens says of each token whether it has alternatives.',
  })
}
