/**
 * Models that two real processes run over gloo: a stock Transformers model sharded by its own
 * tp_plan, and a model of one's own, sharded and in two stages. Each rank has a segment; what comes
 * out is one request, with the tensors and statistics of the unsharded model.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { RequestSummary } from '../../collector/records.ts'
import {
  type OtlpSpan,
  plainAttributes,
  type Receiver,
  startReceiver,
} from '../helpers/otlp-receiver.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  python,
  runExporter,
  runPython,
  segmentFiles,
  startExporter,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const modes = ['stock-tp', 'own-tp', 'own-pp'] as const
type Mode = (typeof modes)[number]

const hooks = 'resid_pre,q,k,v,pattern,mlp_post,final_logits,token_ids'
/** Two reductions are summed in another order than one product; nothing is reduced over stages. */
const tolerances: Record<Mode, number> = { 'stock-tp': 1e-5, 'own-tp': 1e-5, 'own-pp': 0 }
const layers = 2
const heads = 4
const tokens = 10
const parent = 'b7ad6b7169203331'
const traceOf: Record<Mode | 'dead', string> = {
  'stock-tp': '0af7651916cd43dd8448eb211c80310a',
  'own-tp': '0af7651916cd43dd8448eb211c80310b',
  'own-pp': '0af7651916cd43dd8448eb211c80310c',
  dead: '0af7651916cd43dd8448eb211c80310d',
}

const workspace = createWorkspace()
const model = join(workspace.root, 'tiny-llama')
let receiver: Receiver
let exporter: Exporter
const port = 29_700 + (process.pid % 200)
const children: ChildProcess[] = []

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  killAll()
  await receiver?.stop()
  workspace.remove()
})

/** Both ranks, through all requests, to their end; how each ended. */
async function launch() {
  const requests = Object.fromEntries(
    Object.entries(traceOf).map(([mode, trace]) => [mode, `00-${trace}-${parent}-01`]),
  )
  const ranks = [0, 1].map((rank) => {
    const words = [
      join(import.meta.dirname, 'ranks_process.py'),
      ...['--requests', JSON.stringify(requests), '--rank', `${rank}`, '--hooks', hooks],
      ...['--segments', workspace.segments, '--out', workspace.out, '--model', model],
    ]
    const place = { RANK: `${rank}`, LOCAL_RANK: `${rank}`, WORLD_SIZE: '2' }
    const env = { ...process.env, ...place, MASTER_ADDR: '127.0.0.1', MASTER_PORT: `${port}` }
    const child = spawn(python, words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    children.push(child)
    const lines: string[] = []
    for (const stream of [child.stderr, child.stdout]) {
      stream.on('data', (part) => void lines.push(String(part)))
    }
    return once(child, 'exit').then(([code, signal]) => ({
      how: (code ?? signal) as number | string,
      log: lines.join(''),
    }))
  })
  return Promise.all(ranks)
}

async function listed(): Promise<Record<string, unknown>[]> {
  const answer = await get(`${exporter.url}/v1/traces`)
  return answer.json<{ traces: Record<string, unknown>[] }>().traces
}

beforeAll(async () => {
  receiver = await startReceiver()
  exporter = await startExporter(workspace, { RING2_TELEMETRY_ENDPOINT: receiver.url })
  const [first, second] = await launch()
  expect(first?.how, first?.log).toBe(0)
  expect(first?.log).toContain('left alone: ')
  expect(second?.how, second?.log).toBe('SIGKILL')
  const over = (one: Record<string, unknown>): boolean => one.ended_at !== null
  await vi.waitUntil(async () => (await listed()).filter(over).length === modes.length + 1, {
    timeout: 90_000,
    interval: 200,
  })
}, 540_000)

async function summaryOf(traceId: string): Promise<RequestSummary> {
  const [row] = await queryDuckDb(
    `SELECT summary FROM ${requestsOf(workspace.store)} WHERE trace_id = '${traceId}'`,
  )
  return JSON.parse(String(row?.summary))
}

describe('a request that two ranks ran', () => {
  test('is one request, complete, of two producers', async () => {
    const requests = (await listed()).filter((one) => one.request_id !== 'dead')
    expect(requests.map(({ request_id }) => request_id).sort()).toEqual([...modes].sort())
    for (const one of requests) {
      expect(one).toMatchObject({ tokens, prompt_tokens: 7, steps: 4, completeness: 'complete' })
    }
    const rows = await queryDuckDb(
      `SELECT request_id, count(*)::INTEGER AS n FROM ${requestsOf(workspace.store)} GROUP BY ALL`,
    )
    expect(rows.map(({ n }) => n)).toEqual([1, 1, 1, 1])
  })

  test.each(modes)('%s carries the ranks of each process in its rows', async (mode) => {
    const rows = await queryDuckDb(
      `SELECT hook, list_sort(list(DISTINCT tp_rank)) AS tp, list_sort(list(DISTINCT pp_rank)) AS pp,
         count(DISTINCT layer)::INTEGER AS layers
       FROM ${tensorsOf(workspace.store)} WHERE request_id = '${mode}' GROUP BY hook`,
    )
    const places = Object.fromEntries(rows.map(({ hook, tp, pp }) => [hook, [tp, pp]]))
    const staged = mode === 'own-pp'
    const of = (sharded: boolean) => (staged ? [[0], [0, 1]] : [sharded ? [0, 1] : [0], [0]])
    for (const hook of ['q', 'k', 'v', 'pattern', 'mlp_post']) {
      expect(places[hook], hook).toEqual(of(true))
    }
    expect(places.resid_pre).toEqual(of(false))
    expect(places.token_ids).toEqual([[0], [0]])
    expect(places.final_logits).toEqual([[0], [staged ? 1 : 0]])
    expect(rows.find(({ hook }) => hook === 'resid_pre')?.layers).toBe(layers)
  })

  test.each(modes)('%s has one tree of spans under its caller', async (mode) => {
    const spans = (): OtlpSpan[] => receiver.spans().filter((one) => one.traceId === traceOf[mode])
    await vi.waitUntil(() => spans().length >= 3, { timeout: 30_000 })
    expect(
      spans()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['ring2 decode', 'ring2 prefill', 'ring2 request'])
    const request = spans().find(({ name }) => name === 'ring2 request')
    expect(request?.parentSpanId).toBe(parent)
    expect(plainAttributes(request?.attributes)).toMatchObject({
      'ring2.completeness': 'complete',
      'ring2.steps': 4,
    })
  })

  test('says which ranks there were, over HTTP', async () => {
    const answer = await get(`${exporter.url}/v1/traces/${traceOf['own-pp']}`)
    const { requests } = answer.json<{ requests: { details: Record<string, unknown> }[] }>()
    expect(requests).toHaveLength(1)
    expect(requests[0]?.details.parallel).toMatchObject({
      world: { tp: 1, pp: 2, dp: 1, ep: 1 },
      ranks: [
        { tp_rank: 0, pp_rank: 0, steps: 4, completeness: 'complete' },
        { tp_rank: 0, pp_rank: 1, steps: 4, completeness: 'complete' },
      ],
    })
  })
})

interface Read {
  readonly requests: number
  readonly tensors: number
  readonly worst: Record<string, number>
  readonly completeness: readonly string[]
  readonly shard: readonly number[]
  readonly whole: readonly number[]
}

interface Answer {
  readonly http: Read
  readonly folder: Read
  readonly statistics: Record<string, readonly number[]>
}

let readOnce: Record<Mode, Answer> | null = null

function readBack(): Record<Mode, Answer> {
  if (readOnce === null) {
    const words = modes.flatMap((mode) => [traceOf[mode], join(workspace.out, `${mode}.npz`)])
    const lines = runPython('read_ranks.py', [exporter.url, workspace.store, ...words])
    const answers: Answer[] = JSON.parse(lines)
    readOnce = Object.fromEntries(modes.map((mode, index) => [mode, answers[index]])) as Record<
      Mode,
      Answer
    >
  }
  return readOnce
}

describe('what is fetched', () => {
  test.each(
    modes.flatMap((mode) => (['http', 'folder'] as const).map((way) => [mode, way] as const)),
  )('of %s by %s is the tensor of the unsharded model', (mode, way) => {
    const read = readBack()[mode][way]
    expect(read.requests).toBe(1)
    expect(read.tensors).toBe(6 * layers + 2)
    expect(read.completeness).toEqual(['complete'])
    expect(Object.keys(read.worst).sort()).toEqual(hooks.split(',').sort())
    for (const [hook, difference] of Object.entries(read.worst)) {
      expect(difference, hook).toBeLessThanOrEqual(tolerances[mode])
    }
    expect(read.worst.token_ids).toBe(0)
    expect(read.whole).toEqual([heads, tokens, tokens])
    expect(read.shard).toEqual([mode === 'own-pp' ? heads : heads / 2, tokens, tokens])
  })

  test('as a file by the command line is the whole tensor, and a shard where a rank is named', () => {
    const shapeOf = (words: readonly string[]): number[] => {
      const done = runExporter(workspace, [
        ...['fetch', traceOf['stock-tp'], '--hook', 'q', '--layer', '1', '--json'],
        ...['-o', join(workspace.root, 'q.npy'), '--require-complete', ...words],
      ])
      expect(done.code, done.stderr).toBe(0)
      return JSON.parse(done.stdout).tensors[0].shape
    }
    expect(shapeOf([])).toEqual([tokens, heads, 8])
    expect(shapeOf(['--rank', '1'])).toEqual([tokens, heads / 2, 8])
  })

  test('for the explorer’s views is whole too', async () => {
    const base = `${exporter.url}/v1/traces/${traceOf['own-tp']}`
    const pattern = await get(`${base}/views/pattern/1?head=3`)
    expect(pattern.status).toBe(200)
    expect(pattern.json<{ heads: number }>().heads).toBe(heads)
    const norms = await get(`${base}/views/norms?hook=mlp_post`)
    expect(norms.json<{ layers: number[] }>().layers).toEqual([0, 1])
  })
})

describe('the statistics', () => {
  test.each(modes)('of %s are those of the whole tensors', async (mode) => {
    const { layerSeries } = await summaryOf(traceOf[mode])
    const { statistics } = readBack()[mode]
    for (const [name, expected] of Object.entries(statistics)) {
      const series = layerSeries[name]
      expect(series, name).toHaveLength(layers)
      for (const [layer, value] of expected.entries()) {
        expect(Number(series?.[layer]) / value, `${name} ${layer}`).toBeCloseTo(1, 4)
      }
    }
    // A norm of half of a vector is none of the vector.
    const cut = layerSeries['mlp_post.l2_mean']
    if (mode === 'own-pp') expect(cut).toHaveLength(layers)
    else expect(cut).toBeUndefined()
  })
})

test('a rank that is killed leaves the request incomplete, and says so', async () => {
  const own = (await listed()).filter((one) => one.trace_id === traceOf.dead)
  expect(own).toMatchObject([{ request_id: 'dead', completeness: 'incomplete' }])
  const { completeness } = await summaryOf(traceOf.dead)
  expect(completeness.state).toBe('incomplete')
  expect(completeness.reasons.join('; ')).toContain('the producer ended before the request did')
  const spans = (): OtlpSpan[] => receiver.spans().filter((one) => one.traceId === traceOf.dead)
  const request = (): OtlpSpan[] => spans().filter(({ name }) => name === 'ring2 request')
  await vi.waitUntil(() => request().length > 0, { timeout: 30_000 })
  expect(request()).toHaveLength(1)
  await vi.waitUntil(() => segmentFiles(workspace).length === 0, { timeout: 30_000 })
})
