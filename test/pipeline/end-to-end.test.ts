/**
 * The whole way with real processes: a stock model with trained weights, the exporter, a real OTLP
 * receiver; then every reader and every way back, compared with what the model itself held.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { deriveSpanId, deriveTraceId } from '../../collector/ids.ts'
import {
  type OtlpSpan,
  plainAttributes,
  type Receiver,
  startReceiver,
} from '../helpers/otlp-receiver.ts'
import {
  createWorkspace,
  type Exporter,
  type GeneratedRequest,
  get,
  killAll,
  type ModelProcess,
  runExporter,
  runPython,
  segmentFiles,
  startExporter,
  startModel,
  writeJson,
} from './processes.ts'
import { queryDuckDb, requestsOf, tensorsOf } from './store-reader.ts'

const hooks = 'hidden-states,resid_final,pattern,q,k,v,logits,token-ids'
const layeredHooks = ['resid_pre', 'pattern', 'q', 'k', 'v']
const globalHooks = ['resid_final', 'final_logits', 'token_ids']
const newTokens = 4

const traceOne = '0af7651916cd43dd8448eb211c80319c'
const spanOne = 'b7ad6b7169203331'
const traceTwo = '1bf7651916cd43dd8448eb211c80319d'
const spanTwo = 'c7ad6b7169203332'
const commands = {
  single: {
    id: 'single',
    text: 'Name three colors.',
    traceparent: `00-${traceOne}-${spanOne}-01`,
    attributes: { route: '/chat', 'user.tier': 2 },
  },
  short: { id: 'short', text: 'Hi.', traceparent: `00-${traceTwo}-${spanTwo}-01` },
  long: { id: 'long', text: 'Why is the sky blue on a clear summer day, and red in the evening?' },
}
const traceOf: Record<string, string> = {
  single: traceOne,
  short: traceTwo,
  long: deriveTraceId('long'),
}
const parentOf: Record<string, string | undefined> = { single: spanOne, short: spanTwo }

const workspace = createWorkspace()
let receiver: Receiver
let exporter: Exporter
let model: ModelProcess
let committed: { records: number; bytes: number }
const generated: GeneratedRequest[] = []

afterAll(async () => {
  killAll()
  await receiver?.stop()
  workspace.remove()
})

beforeAll(async () => {
  receiver = await startReceiver()
  ;[exporter, model] = await Promise.all([
    startExporter(workspace, { RING2_TELEMETRY_ENDPOINT: receiver.url }),
    startModel(workspace, { segment: 'chat', hooks }),
  ])
  generated.push(...(await model.generate([commands.single], newTokens, true)))
  generated.push(...(await model.generate([commands.short, commands.long], newTokens, true)))
  committed = await model.counters()
  await vi.waitUntil(async () => (await storedRequests()).length === 3, {
    timeout: 60_000,
    interval: 200,
  })
}, 240_000)

async function storedRequests(): Promise<{ completeness: string; verdict: string }[]> {
  const answer = await get(`${exporter.url}/v1/traces`)
  const { traces } = answer.json<{ traces: { completeness: string; verdict: string }[] }>()
  return traces.filter(({ completeness }) => completeness !== 'open' && completeness !== 'unknown')
}

const recordsPerStep = () => layeredHooks.length * model.layers + globalHooks.length

describe('the store', () => {
  test('holds every request, complete, with its tokens and steps', async () => {
    const rows = await queryDuckDb(
      `SELECT request_id, trace_id, parent_span_id, tokens, prompt_tokens, steps, completeness,
         verdict, expected, seen FROM ${requestsOf(workspace.store)} ORDER BY request_id`,
    )
    const expected = generated.map(({ id, prompt, tokens, steps }) => ({
      request_id: id,
      trace_id: traceOf[id],
      parent_span_id: parentOf[id] ?? null,
      tokens: String(tokens),
      prompt_tokens: String(prompt),
      steps: String(steps),
      completeness: 'complete',
      verdict: 'ok',
      expected: String(steps * recordsPerStep()),
      seen: String(steps * recordsPerStep()),
    }))
    expect(rows).toEqual(expected.sort((a, b) => (a.request_id < b.request_id ? -1 : 1)))
    // A batch is padded on the left, so the short request is shorter than what the model was fed.
    const [, short, long] = generated
    expect(short?.prompt).toBeLessThan(long?.prompt ?? 0)
  })

  test('gives DuckDB and PyArrow the same rows with the same bytes', async () => {
    const duck = await queryDuckDb(
      `SELECT request_id, hook, layer, step::INTEGER AS step, token_start, token_end,
         data_bytes::INTEGER AS data_bytes, md5(data) AS digest FROM ${tensorsOf(workspace.store)}`,
    )
    const rows = duck.map((row) => Object.values(row).join(' ')).sort()
    const arrow = recomputed()
      .digests.map((row) => row.join(' '))
      .sort()
    expect(rows).toEqual(arrow)
    expect(new Set(rows.map((row) => row.split(' ').slice(0, 5).join(' '))).size).toBe(rows.length)
    const steps = generated.reduce((sum, { steps }) => sum + steps, 0)
    expect(rows).toHaveLength(steps * recordsPerStep())
  })

  test('has statistics that NumPy finds again in float64 from the stored bytes', () => {
    const { wrong, worst, rows } = recomputed()
    expect(wrong).toEqual([])
    expect(rows).toBeGreaterThan(1000)
    for (const name of [
      ...['l2_mean', 'l2_max', 'abs_max', 'mean', 'std'].map((column) => `resid_pre.${column}`),
      'pattern.entropy_mean',
      'pattern.sink_mass',
      'final_logits.entropy_mean',
      'final_logits.l2_mean',
    ]) {
      expect(worst, name).toHaveProperty([name])
    }
  })
})

interface Recomputed {
  readonly rows: number
  readonly worst: Record<string, number>
  readonly wrong: unknown[]
  readonly digests: (string | number)[][]
}

let recomputedOnce: Recomputed | null = null

function recomputed(): Recomputed {
  recomputedOnce ??= JSON.parse(runPython('recompute_statistics.py', [workspace.store]))
  return recomputedOnce as Recomputed
}

describe('the spans', () => {
  const spans = new Map<string, OtlpSpan>()

  beforeAll(async () => {
    await vi.waitUntil(() => receiver.spans().length >= 9, { timeout: 30_000 })
    for (const span of receiver.spans()) spans.set(span.spanId, span)
  })

  test.each(Object.keys(commands))('of %s hang under its caller’s span, with derived ids', (id) => {
    const traceId = traceOf[id] ?? ''
    const request = spans.get(deriveSpanId(traceId, id, 'request'))
    expect(request).toMatchObject({ name: 'ring2 request', traceId })
    expect(request?.parentSpanId || undefined).toBe(parentOf[id])
    const within = (span: OtlpSpan | undefined) => {
      expect(BigInt(span?.startTimeUnixNano ?? 0)).toBeGreaterThanOrEqual(
        BigInt(request?.startTimeUnixNano ?? 0),
      )
      expect(BigInt(span?.endTimeUnixNano ?? 0)).toBeLessThanOrEqual(
        BigInt(request?.endTimeUnixNano ?? 0),
      )
    }
    const facts = generated.find((one) => one.id === id)
    for (const [phase, steps, start, end] of [
      ['prefill', 1, 0, facts?.prompt],
      ['decode', newTokens - 1, facts?.prompt, facts?.tokens],
    ] as const) {
      const span = spans.get(deriveSpanId(traceId, id, phase))
      expect(span).toMatchObject({ name: `ring2 ${phase}`, traceId, parentSpanId: request?.spanId })
      expect(plainAttributes(span?.attributes)).toMatchObject({
        'ring2.phase': phase,
        'ring2.steps': steps,
        'ring2.tokens.start': start,
        'ring2.tokens.end': end,
      })
      within(span)
    }
    const siblings = [...spans.values()].filter((span) => span.traceId === traceId)
    expect(siblings).toHaveLength(3)
  })

  test.each(Object.keys(commands))('of %s carry the verdict and what its caller said', (id) => {
    const request = spans.get(deriveSpanId(traceOf[id] ?? '', id, 'request'))
    const attributes = plainAttributes(request?.attributes)
    expect(attributes).toMatchObject({
      'ring2.request.id': id,
      'ring2.verdict': 'ok',
      'ring2.completeness': 'complete',
      'ring2.anomaly': false,
    })
    if (id === 'single') expect(attributes).toMatchObject({ route: '/chat', 'user.tier': 2 })
  })

  test('carry per-layer arrays that the store gives again', async () => {
    const rows = await queryDuckDb(
      `SELECT request_id, hook, layer,
         sum(l2_mean * (token_end - token_start)) / sum(token_end - token_start) AS l2_mean,
         max(l2_max) AS l2_max,
         sum(sink_mass * (token_end - greatest(token_start, 1)))
           / sum(token_end - greatest(token_start, 1)) FILTER (sink_mass IS NOT NULL) AS sink_mass
       FROM ${tensorsOf(workspace.store)} WHERE layer >= 0
       GROUP BY ALL ORDER BY request_id, hook, layer`,
    )
    for (const id of Object.keys(commands)) {
      const request = spans.get(deriveSpanId(traceOf[id] ?? '', id, 'request'))
      const attributes = plainAttributes(request?.attributes)
      for (const [hook, column] of [
        ['resid_pre', 'l2_mean'],
        ['resid_pre', 'l2_max'],
        ['pattern', 'sink_mass'],
      ] as const) {
        const own = rows.filter((row) => row.request_id === id && row.hook === hook)
        expect(attributes[`ring2.${hook}.layers`]).toEqual(own.map((row) => row.layer))
        const values = attributes[`ring2.${hook}.${column}`] as number[]
        expect(values).toHaveLength(model.layers)
        for (const [layer, value] of values.entries()) {
          expect(value / Number(own[layer]?.[column])).toBeCloseTo(1, 9)
        }
      }
    }
  })
})

describe('the metrics', () => {
  test('arrive by OTLP: every token’s norm of every layer, and the records of the segment', async () => {
    const tokens = generated.reduce((sum, request) => sum + request.tokens, 0)
    const latest = (name: string) =>
      receiver
        .metrics()
        .flat()
        .filter((metric) => metric.name === name)
        .at(-1)
    const normCount = () => {
      const points = latest('ring2.tensor.l2_norm')?.exponentialHistogram?.dataPoints ?? []
      const own = points.filter((point) => {
        const attributes = plainAttributes(point.attributes)
        return attributes['ring2.hook'] === 'resid_pre' && attributes['ring2.layer'] === 3
      })
      return own.reduce((sum, point) => sum + Number(point.count), 0)
    }
    await expect.poll(normCount, { timeout: 30_000 }).toBe(tokens)
    const records = latest('ring2.capture.records')?.sum?.dataPoints ?? []
    expect(records.map((point) => Number(point.asInt))).toEqual([committed.records])
  })

  test('are on the page, with an exemplar that names a trace', async () => {
    const page = Buffer.from((await get(`${exporter.url}/metrics`)).bytes).toString('utf8')
    const traces = new Set(Array.from(page.matchAll(/trace_id="([0-9a-f]{32})"/g), (m) => m[1]))
    expect(traces.size).toBeGreaterThan(0)
    for (const trace of traces) expect(Object.values(traceOf)).toContain(trace)
    expect(page.trimEnd().endsWith('# EOF')).toBe(true)
  })
})

interface Comparison {
  readonly file: string
  readonly format: string
  readonly reference: string
  readonly array: string
  readonly tolerance: number
}

function expectEqual(comparisons: readonly Comparison[]): void {
  const list = join(workspace.root, 'comparisons.json')
  writeJson(list, comparisons)
  const results: { equal: boolean }[] = JSON.parse(runPython('compare_tensors.py', [list]))
  expect(results).toHaveLength(comparisons.length)
  expect(results.filter(({ equal }) => !equal)).toEqual([])
}

const middle = () => Math.floor(model.layers / 2)
const tensorNames = () => [
  ...Array.from({ length: model.layers }, (_, layer) => ['resid_pre', String(layer)] as const),
  ...[0, middle(), model.layers - 1].map((layer) => ['pattern', String(layer)] as const),
  ['final_logits', 'global'] as const,
  ['token_ids', 'global'] as const,
]

describe('fetched by trace id, a tensor is what the model itself held', () => {
  test('over HTTP as npy: every layer, the logits, the ids and attention of every request', async () => {
    const comparisons: Comparison[] = []
    for (const { id, reference = '', tokens } of generated) {
      for (const [hook, layer] of tensorNames()) {
        const url = `${exporter.url}/v1/traces/${traceOf[id]}/tensors/${hook}/${layer}`
        const answer = await get(`${url}?require=complete`)
        expect(answer.status, url).toBe(200)
        expect(answer.headers.get('x-ring2-completeness')).toBe('complete')
        const first = hook === 'final_logits' ? tokens - newTokens : 0
        expect(answer.headers.get('x-ring2-tokens')).toBe(`${first}:${tokens}`)
        const file = join(workspace.out, `http-${id}.${hook}.${layer}.npy`)
        writeFileSync(file, answer.bytes)
        const array = layer === 'global' ? hook : `${hook}.${layer}`
        const tolerance = hook === 'pattern' ? 1e-5 : 0
        comparisons.push({ file, format: 'npy', reference, array, tolerance })
      }
    }
    expectEqual(comparisons)
  })

  test.each(['safetensors', 'json'])('over HTTP as %s', async (format) => {
    const { id, reference = '' } = generated[2] as GeneratedRequest
    const comparisons: Comparison[] = []
    for (const [hook, layer] of [
      ['resid_pre', '7'],
      ['pattern', String(middle())],
      ['token_ids', 'global'],
    ]) {
      const path = `/v1/traces/${traceOf[id]}/tensors/${hook}/${layer}?format=${format}`
      const answer = await get(exporter.url + path)
      const file = join(workspace.out, `${hook}.${format}`)
      writeFileSync(file, answer.bytes)
      const array = layer === 'global' ? `${hook}` : `${hook}.${layer}`
      const tolerance = hook === 'pattern' ? 1e-5 : 0
      comparisons.push({ file, format, reference, array, tolerance })
    }
    expectEqual(comparisons)
  })

  test('by the command line, whole', () => {
    const { id, reference = '' } = generated[1] as GeneratedRequest
    const folder = join(workspace.out, 'fetched')
    const done = runExporter(workspace, [
      'fetch',
      traceOf[id] ?? '',
      ...['--hook', 'resid_pre', '-o', folder, '--require-complete', '--json'],
    ])
    expect(done).toMatchObject({ code: 0 })
    const { tensors } = JSON.parse(done.stdout) as { tensors: { layer: number; file: string }[] }
    expect(tensors).toHaveLength(model.layers)
    expectEqual(
      tensors.map(({ layer, file }) => ({
        file,
        format: 'npy',
        reference,
        array: `resid_pre.${layer}`,
        tolerance: 0,
      })),
    )
  })
})

describe('at the end', () => {
  test('the model detaches, and its segment is drained, stored and removed', async () => {
    expect(await model.detach()).toBe(0)
    await expect.poll(() => segmentFiles(workspace), { timeout: 20_000 }).toEqual([])
  })

  test('SIGTERM ends the exporter in order: nothing waits, and it exits with 0', async () => {
    expect(await exporter.stop('SIGTERM')).toBe(0)
    const messages = exporter.logs().map(({ msg }) => msg)
    expect(messages.at(-1)).toBe('stopped')
    expect(exporter.logs().filter(({ level }) => level >= 40)).toEqual([])
    expect(receiver.spans()).toHaveLength(9)
  })
})
