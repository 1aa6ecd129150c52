/**
 * The real server over a store that the real sink has written, with what the tests compare against: texts
 * and numbers that look like those of a model, and are known.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ModelInfo, RequestSummary, TensorRow } from '../../collector/records.ts'
import { explorerFolder } from '../../exporter/api/explorer-page.ts'
import { buildServer } from '../../exporter/api/server.ts'
import { model as baseModel, floats, request, row, summary } from '../exporter/tensors/rows.ts'
import { openFixture } from '../exporter/tensors/store-fixture.ts'

export const chatTrace = '0af7651916cd43dd8448eb211c80319c'
export const hostileTrace = 'dead0000dead0000dead0000dead0000'
export const brokenTrace = 'b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0'
export const hostile = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'

const piecesOfText = [
  '<|im_start|>',
  'user',
  '\n',
  'Write',
  ' one',
  ' line',
  ' about',
  ' the',
  ' sea',
  '.',
  '<|im_end|>',
  '\n',
  '<|im_start|>',
  'assistant',
  '\n',
  'The',
  ' waves',
  ' whisper',
  ' secrets',
  ' to',
  ' the',
  ' shore',
  ',',
  ' a',
  ' rhythmic',
  ' lull',
  'aby',
  ' for',
  ' moon',
  '.',
  hostile,
  ' tide',
]
const vocabularySize = piecesOfText.length

export const chat = {
  tokens: 30,
  prompt: 15,
  layers: 6,
  heads: 4,
  hidden: 8,
} as const

export const chatModel: ModelInfo = {
  ...baseModel,
  layers: chat.layers,
  heads: chat.heads,
  hidden: chat.hidden,
  vocabulary: vocabularySize,
  hooks: {
    resid_pre: [0, 1, 2, 3, 4, 5],
    pattern: [0, 1, 2, 3, 4, 5],
    final_logits: [-1],
    token_ids: [-1],
  },
}

/** Between 0 and 1, the same for the same numbers. */
export function noise(...seeds: readonly number[]): number {
  const mixed = seeds.reduce((sum, seed, index) => sum + (seed + 1) * (12.9898 + index * 37.719), 0)
  const value = Math.sin(mixed) * 43758.5453
  return value - Math.floor(value)
}

export function hiddenState(layer: number, token: number): number[] {
  const size = (token === 0 ? 60 : 1) * (1 + layer * 1.7)
  return Array.from(
    { length: chat.hidden },
    (_, index) => size * (noise(layer, token, index) - 0.4),
  )
}

export function normOf(layer: number, token: number): number {
  return Math.hypot(...hiddenState(layer, token).map(Math.fround))
}

/** Attention of one query over its keys: a sink, its own neighbourhood, and some more; sums to 1. */
export function attention(layer: number, head: number, query: number, keys: number): number[] {
  const raw = Array.from({ length: keys }, (_, key) => {
    if (key > query) return 0
    const near = Math.exp(-(query - key) / (1 + head))
    return 0.15 * noise(layer, head, query, key) ** 4 + near + (key === 0 ? 1.5 + layer * 0.4 : 0)
  })
  const sum = raw.reduce((total, one) => total + one, 0)
  return raw.map((one) => one / sum)
}

export function logits(position: number): number[] {
  return Array.from({ length: vocabularySize }, (_, id) => {
    const next = id === position + 1 ? 4 + 3 * noise(position, 7) : 0
    return next + 3 * noise(position, id)
  })
}

export const tokenIds = Array.from({ length: chat.tokens }, (_, position) => position)
export const tokenTexts = tokenIds.map((id) => piecesOfText[id] ?? '')

interface Named {
  readonly traceId: string
  readonly requestId: string
  readonly key: number
  readonly model?: ModelInfo
  readonly ids?: readonly number[]
}

/** Rows of one prefill and of the steps after it, as a producer sends them. */
export function rowsOf({
  traceId,
  requestId,
  key,
  model = chatModel,
  ids = tokenIds,
}: Named): TensorRow[] {
  const owner = request({ key, requestId, traceId })
  const steps = [
    { start: 0, end: chat.prompt },
    ...Array.from({ length: chat.tokens - chat.prompt }, (_, index) => ({
      start: chat.prompt + index,
      end: chat.prompt + index + 1,
    })),
  ]
  return steps.flatMap(({ start, end }, step) => {
    const positions = Array.from({ length: end - start }, (_, index) => start + index)
    const phase: 'prefill' | 'decode' = step === 0 ? 'prefill' : 'decode'
    const base = { request: owner, model, step, phase, tokenStart: start, tokenEnd: end }
    const hidden = range(chat.layers).map((layer) =>
      row({
        ...base,
        layer,
        shape: [end - start, chat.hidden],
        data: floats(...positions.flatMap((position) => hiddenState(layer, position))),
      }),
    )
    const patterns = range(chat.layers).map((layer) =>
      row({
        ...base,
        hook: 'pattern',
        layer,
        shape: [chat.heads, end - start, end],
        data: floats(
          ...range(chat.heads).flatMap((head) =>
            positions.flatMap((query) => attention(layer, head, query, end)),
          ),
        ),
      }),
    )
    return [
      ...hidden,
      ...patterns,
      row({
        ...base,
        hook: 'final_logits',
        layer: -1,
        shape: [1, vocabularySize],
        data: floats(...logits(end - 1)),
      }),
      row({
        ...base,
        hook: 'token_ids',
        layer: -1,
        dtype: 'int64',
        shape: [end - start],
        data: new Uint8Array(
          new BigInt64Array(positions.map((position) => BigInt(ids[position] ?? 0))).buffer,
        ),
      }),
    ]
  })
}

export function ended(
  { traceId, requestId, key, model = chatModel }: Named,
  change: Partial<RequestSummary> = {},
) {
  const base = summary()
  return summary({
    request: request({
      key,
      requestId,
      traceId,
      startedAtMicros: base.request.startedAtMicros + key * 60_000_000,
    }),
    endedAtMicros: base.endedAtMicros + key * 60_000_000,
    model,
    tokens: chat.tokens,
    promptTokens: chat.prompt,
    steps: chat.tokens - chat.prompt + 1,
    phases: [
      { ...phaseOf(base, 0), tokenStart: 0, tokenEnd: chat.prompt },
      {
        ...phaseOf(base, 1),
        tokenStart: chat.prompt,
        tokenEnd: chat.tokens,
        steps: chat.tokens - chat.prompt,
      },
    ],
    completeness: { state: 'complete', expected: 224, seen: 224, reasons: [] },
    tensorsStored: 224,
    bytesStored: 91_000,
    ...change,
  })
}

function phaseOf(base: RequestSummary, index: number): RequestSummary['phases'][number] {
  const found = base.phases[index]
  if (found === undefined) throw new Error('the summary has no such phase')
  return found
}

function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index)
}

export const brokenReasons = [
  '2 of 224 tensors were lost: ring_full',
  'step 4 has no resid_pre of layer 3',
]
export const missingEvidence = ['the capture is incomplete', 'final_logits: 3 of 4 tokens']

export interface Site {
  readonly url: string
  readonly root: string
  close(): Promise<void>
}

/** Three chats: a plain one, one whose names are markup, and one that was found broken. */
function fill(store: ReturnType<typeof openFixture>): void {
  const plain = { traceId: chatTrace, requestId: 'chat-1', key: 1 }
  const marked = {
    traceId: hostileTrace,
    requestId: hostile,
    key: 2,
    model: { ...chatModel, name: `model/${hostile}` },
    ids: tokenIds.map((id) => (id === 3 ? 30 : id)),
  }
  const broken = { traceId: brokenTrace, requestId: 'chat-broken', key: 3 }
  store.flush(rowsOf(plain), [ended(plain)])
  store.flush(rowsOf(marked), [ended(marked)])
  // Of the broken one the logits are missing, and some rows of a layer.
  const kept = rowsOf(broken).filter(
    ({ hook, layer, step }) =>
      hook !== 'final_logits' && !(hook === 'resid_pre' && layer === 3 && step === 4),
  )
  store.flush(kept, [
    ended(broken, {
      tensorsStored: kept.length,
      verdict: 'collapsed',
      findings: [
        {
          verdict: 'collapsed',
          statistic: 'resid_pre.token_cosine_mean',
          value: 0.99973,
          bound: 0.9995,
          direction: 'above',
          layer: 3,
          phase: 'decode',
        },
      ],
      missingEvidence,
      completeness: { state: 'incomplete', expected: 224, seen: 222, reasons: brokenReasons },
    }),
  ])
}

export async function openSite(
  options: { readonly token?: string; readonly baseUrl?: string; readonly fill?: typeof fill } = {},
): Promise<Site> {
  const root = mkdtempSync(join(tmpdir(), 'ring2-explorer-'))
  const store = openFixture(root)
  const { fill: fillStore = fill } = options
  fillStore(store)
  let url = ''
  const app = await buildServer({
    catalog: store.catalog,
    reader: store.reader(),
    vocabularies: {
      find: () => 'pieces',
      open: async () => ({ text: (id) => piecesOfText[id] ?? null }),
    },
    rings: () => ({ segments: [] }),
    metrics: () => ({ contentType: 'text/plain', body: '' }),
    health: () => ({ alive: true, ready: true, checks: [] }),
    token: options.token ?? null,
    explorer: explorerFolder,
    storeUrl: root,
    version: '0.1.0',
    baseUrl: () => options.baseUrl ?? url,
    logger: null,
  })
  url = await app.listen({ host: '127.0.0.1', port: 0 })
  return {
    url,
    root,
    async close() {
      await app.close()
      rmSync(root, { recursive: true, force: true })
    },
  }
}
