/** What a fetched tensor is, as its JSON document and its safetensors metadata say. Pure. */
import type { OpenedTensor } from './reader.ts'
import { GLOBAL_LAYER, type TokenRange } from './selection.ts'

/** `resid_pre.11`, or the hook's name alone for a hook without layers. */
export function tensorName(opened: OpenedTensor): string {
  return opened.layer === GLOBAL_LAYER ? opened.hook : `${opened.hook}.${opened.layer}`
}

export function tensorFacts(opened: OpenedTensor): Record<string, unknown> {
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
