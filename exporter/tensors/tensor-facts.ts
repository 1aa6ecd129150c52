/** What a fetched tensor is, as its JSON document and its safetensors metadata say. Pure. */
import { answerTensor, type TensorAnswer, type TensorFormat } from './formats.ts'
import type { TensorFacts } from './frames.ts'
import type { OpenedTensor } from './reader.ts'
import { GLOBAL_LAYER, type TokenRange } from './selection.ts'

/** `resid_pre.11`, or the hook's name alone for a hook without layers. */
export function tensorName(opened: OpenedTensor): string {
  return opened.layer === GLOBAL_LAYER ? opened.hook : `${opened.hook}.${opened.layer}`
}

/** Its name, type and shape, and what the files say of it. */
export function tensorFacts(opened: OpenedTensor): TensorFacts {
  const { dtype, shape } = opened.plan
  return { dtype, shape, name: tensorName(opened), metadata: metadataOf(opened) }
}

/** The tensor as a file of this format: its size, and its bytes as they are taken. */
export function answerOf(
  opened: OpenedTensor,
  format: TensorFormat,
  signal: AbortSignal | null = null,
): Promise<TensorAnswer> {
  return answerTensor(format, tensorFacts(opened), opened, signal)
}

function metadataOf(opened: OpenedTensor): Record<string, unknown> {
  const { plan } = opened
  return {
    trace_id: opened.traceId,
    request_id: opened.requestId,
    hook: opened.hook,
    layer: opened.layer,
    dtype: plan.dtype.name,
    shape: plan.shape,
    tokens: plan.tokens.map(pair),
    completeness: plan.completeness,
    gaps: plan.gaps.map(pair),
  }
}

function pair(range: TokenRange): [number, number] {
  return [range.start, range.end]
}
