/** A request of 2,000 tokens in 48 layers, and attention of one of them, as the real sink stores it. */
import type { ModelInfo } from '../../collector/records.ts'
import { model as baseModel, request, row, summary } from '../exporter/tensors/rows.ts'
import type { openFixture } from '../exporter/tensors/store-fixture.ts'

export const largeTrace = 'aaaabbbbccccddddeeeeffff00001111'
export const largeChat = { tokens: 2000, layers: 48, hidden: 16, heads: 2 } as const

const { tokens, layers, hidden, heads } = largeChat
const model: ModelInfo = {
  ...baseModel,
  layers,
  heads,
  hidden,
  hooks: {
    resid_pre: Array.from({ length: layers }, (_, layer) => layer),
    pattern: [0],
    token_ids: [-1],
  },
}

function element(layer: number, token: number, index: number): number {
  const wave = 1 + 0.5 * Math.sin(token / 40 + layer / 5) + 0.2 * Math.sin(token * 1.7 + layer)
  return (token === 0 ? 30 : 1) * (layer + 1) * wave * (index % 2 === 0 ? 1 : -0.5)
}

export function largeNorm(layer: number, token: number): number {
  return Math.hypot(
    ...Array.from({ length: hidden }, (_, index) => Math.fround(element(layer, token, index))),
  )
}

export function storeLarge(store: ReturnType<typeof openFixture>): void {
  const owner = request({ key: 1, requestId: 'long-1', traceId: largeTrace })
  const base = { request: owner, model, tokenStart: 0, tokenEnd: tokens }
  const states = Array.from({ length: layers }, (_, layer) => {
    const values = new Float32Array(tokens * hidden)
    for (let token = 0; token < tokens; token += 1) {
      for (let index = 0; index < hidden; index += 1) {
        values[token * hidden + index] = element(layer, token, index)
      }
    }
    return row({ ...base, layer, shape: [tokens, hidden], data: bytesOf(values) })
  })
  const pattern = new Float32Array(heads * tokens * tokens)
  for (let place = 0; place < heads * tokens; place += 1) {
    const query = place % tokens
    // Half on the sink, half on itself.
    pattern[place * tokens] = 0.5
    pattern[place * tokens + query] = (pattern[place * tokens + query] ?? 0) + 0.5
  }
  const ids = new BigInt64Array(tokens).map((_, position) => BigInt(position % 30))
  store.flush(
    [
      ...states,
      row({
        ...base,
        hook: 'pattern',
        layer: 0,
        shape: [heads, tokens, tokens],
        data: bytesOf(pattern),
      }),
      row({
        ...base,
        hook: 'token_ids',
        layer: -1,
        dtype: 'int64',
        shape: [tokens],
        data: bytesOf(ids),
      }),
    ],
    [
      summary({
        request: owner,
        model,
        tokens,
        promptTokens: tokens,
        phases: summary()
          .phases.slice(0, 1)
          .map((phase) => ({ ...phase, tokenEnd: tokens })),
      }),
    ],
  )
}

function bytesOf(values: Float32Array | BigInt64Array): Uint8Array {
  return new Uint8Array(values.buffer)
}
