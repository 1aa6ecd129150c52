/** `ring2-exporter calibrate` on a real store, and what a service makes of the file it writes. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Baseline, parseBaselines } from '../../collector/baseline.ts'
import { deriveTraceId } from '../../collector/ids.ts'
import { completenessStates, type Finding, type RequestSummary } from '../../collector/records.ts'
import { requestInfo, requestSummary } from '../exporter/telemetry/fixtures.ts'
import { openFixture } from '../exporter/tensors/store-fixture.ts'
import { openProducer, type TestProducer } from '../helpers/producer.ts'
import { writeRequest } from '../helpers/requests.ts'
import {
  createWorkspace,
  type Exporter,
  get,
  killAll,
  runExporter,
  startExporter,
} from './processes.ts'

const workspace = createWorkspace()
const file = join(workspace.root, 'baselines.json')
const healthyCount = 40

afterAll(() => {
  killAll()
  workspace.remove()
})

/** The n-th healthy request, each a little different from the others. */
function healthy(index: number, change: Partial<RequestSummary> = {}): RequestSummary {
  const requestId = `healthy-${index}`
  const traceId = deriveTraceId(requestId)
  const wave = Math.sin(index)
  const structure = (norm: number) => ({
    'pattern.entropy_no_sink_mean': [0.8 + 0.02 * wave, 0.6 + 0.05 * wave],
    'resid_pre.l2_no_first_mean': [3 + 0.1 * wave, norm + 5 * wave],
  })
  const summary = requestSummary(
    {
      tokens: 60,
      promptTokens: 20,
      phaseStatistics: {
        prefill: { logitRows: 1, layerSeries: structure(80), globals: {} },
        decode: {
          logitRows: 40,
          layerSeries: structure(50),
          globals: {
            'final_logits.entropy_mean': 1.5 + 0.5 * wave,
            'token_ids.repetition': 0.05 + 0.04 * wave,
            'token_ids.loop_period': 0,
            'token_ids.tokens_tracked': 40,
          },
        },
      },
    },
    requestInfo({ requestId, traceId, startedAtMicros: (Date.now() - index * 1000) * 1000 }),
  )
  const hooks = { resid_pre: [0, 1], pattern: [0, 1], final_logits: [-1], token_ids: [-1] }
  return { ...summary, model: { ...summary.model, layers: 2, hooks }, ...change }
}

const collapse: Finding = {
  verdict: 'collapsed',
  phase: 'decode',
  statistic: 'resid_pre.layer_growth_mean',
  value: 30,
  bound: 8,
  direction: 'above',
  layer: 1,
}

/** As a store holds it that was written before values were kept per phase. */
function withoutPhases(summary: RequestSummary): RequestSummary {
  const { phaseStatistics: _gone, ...older } = summary
  return older
}

function readFileBaselines(): readonly Baseline[] {
  return parseBaselines(readFileSync(file, 'utf8'), file)
}

const calibrate = (...words: string[]) => runExporter(workspace, ['calibrate', ...words])

beforeAll(() => {
  const { flush, sink, catalog } = openFixture(workspace.store)
  const all = Array.from({ length: healthyCount }, (_, index) => healthy(index))
  const wild = { 'final_logits.entropy_mean': 1e6 }
  const incomplete = { state: 'incomplete' as const, expected: 9, seen: 8, reasons: [] }
  const other = healthy(200)
  flush(
    [],
    [
      ...all,
      healthy(100, { verdict: 'nonfinite', nan: 1, globals: wild }),
      healthy(101, { verdict: 'unknown', completeness: incomplete, globals: wild }),
      { ...other, model: { ...other.model, revision: 'older' } },
      healthy(400, { verdict: 'collapsed', findings: [collapse] }),
      withoutPhases(healthy(300)),
    ],
  )
  sink.close()
  catalog.close()
})

describe('calibrate', () => {
  test('learns from complete requests without NaN, per revision, and writes nothing when dry', () => {
    const done = calibrate('--dry-run', '--json')
    // The older revision has a single request: that it was not learnt is no silent matter.
    expect(done.code).toBe(4)
    expect(existsSync(file)).toBe(false)
    const document = JSON.parse(done.stdout)
    expect(document).toMatchObject({
      written: null,
      left_out: { nonfinite: 1, broken: 1, incomplete: 1, unknown_model: 0, without_phases: 1 },
    })
    const models = document.models as { revision: string; requests: number; learnt: boolean }[]
    expect(models.map(({ revision, requests, learnt }) => [revision, requests, learnt])).toEqual(
      expect.arrayContaining([
        ['main', healthyCount, true],
        ['older', 1, false],
      ]),
    )
  })

  test('leaves out what was found broken, and says so, unless it is asked to take it', () => {
    expect(calibrate('--dry-run').stderr).toMatch(/1 found broken.*--include-broken/)
    const done = calibrate('--dry-run', '--json', '--include-broken')
    const document = JSON.parse(done.stdout) as { models: { revision: string; requests: number }[] }
    const main = document.models.find(({ revision }) => revision === 'main')
    expect(main?.requests).toBe(healthyCount + 1)
  })

  test('shows each statistic, and how many of the requests it would find fault with', () => {
    const done = calibrate('--dry-run')
    expect(done.stdout).toMatch(/SmolLM2-135M-Instruct, main, float32, transformers: 40 requests/)
    expect(done.stdout).toMatch(/^STATISTIC +PHASE +LAYERS +N +P1 +MEDIAN +P99 +FINDINGS$/m)
    expect(done.stdout).toMatch(/^pattern\.entropy_no_sink_mean +prefill +2 +40 .* 0$/m)
    expect(done.stderr).toMatch(/nothing was written/)
  })

  test('writes a file that is read back, beside the entries of other models', () => {
    calibrate()
    const [learnt, ...others] = readFileBaselines()
    expect(others).toEqual([])
    expect(learnt).toMatchObject({ revision: 'main', dtype: 'float32', requests: healthyCount })
    const norm = 'resid_pre.l2_no_first_mean'
    expect(learnt?.phases.prefill.layers[norm]?.[1]?.p50).toBeCloseTo(80, 0)
    expect(learnt?.phases.decode.layers[norm]?.[1]?.p50).toBeCloseTo(50, 0)
    const elsewhere = { ...(learnt as Baseline), model: 'another' }
    const document = { format: 'ring2-baselines', version: 2, baselines: [elsewhere, learnt] }
    writeFileSync(file, JSON.stringify(document))
    calibrate('--since', '1h', '--model', 'SmolLM2-135M-Instruct')
    const models = readFileBaselines().map(({ model }) => model)
    expect(models).toEqual(['another', 'SmolLM2-135M-Instruct'])
  })

  test('refuses with a code when there are too few requests', () => {
    const done = calibrate('--min-requests', '41')
    expect(done.code).toBe(1)
    expect(done.stderr).toMatch(/^RING2_E_CALIBRATE/)
    expect(done.stderr).toMatch(
      /left out: 1 nonfinite, 1 found broken, 1 incomplete, .* 1 of an older exporter/,
    )
    expect(calibrate('--min-requests', 'few').code).toBe(2)
  })

  test('overwrites nothing that it cannot read', () => {
    const damaged = join(workspace.root, 'damaged.json')
    writeFileSync(damaged, '{"format": "ring2-base')
    const done = calibrate('-o', damaged)
    expect(done.code).toBe(1)
    expect(done.stderr).toMatch(/^RING2_E_BASELINE/)
    expect(readFileSync(damaged, 'utf8')).toBe('{"format": "ring2-base')
  })
})

interface Details {
  readonly missing_evidence: readonly string[]
  readonly baseline: string
}

describe('a service with a damaged file of baselines', () => {
  let exporter: Exporter
  let producer: TestProducer

  beforeAll(async () => {
    writeFileSync(file, '{"format": "ring2-baselines", "version": 2, "baselines": [NaN]}')
    exporter = await startExporter(workspace)
    producer = openProducer({ directory: workspace.segments, name: 'chat' })
    producer.model()
  }, 120_000)
  afterAll(async () => {
    producer.close()
    expect(await exporter.stop()).toBe(0)
  })

  async function judged(key: number) {
    writeRequest(producer, key, 3, 2)
    const url = `${exporter.url}/v1/traces/${deriveTraceId(`request-${key}`)}`
    const details = await vi.waitUntil(
      async () => {
        const answer = await get(url)
        if (answer.status !== 200) return null
        const { requests } = answer.json<{
          requests: { verdict: string; details: Details | null }[]
        }>()
        const [request] = requests
        return request?.details == null ? null : { ...request, ...request.details }
      },
      { timeout: 60_000, interval: 100 },
    )
    const { verdict, missing_evidence: missing, baseline } = details
    return { verdict, missing, baseline }
  }

  const text = async (path: string): Promise<string> =>
    Buffer.from((await get(`${exporter.url}${path}`)).bytes).toString('utf8')
  const page = () => text('/metrics')

  test('counts every verdict of a model before its first request', async () => {
    await vi.waitUntil(async () => (await page()).includes('ring2_requests_total'), {
      timeout: 60_000,
      interval: 100,
    })
    const lines = (await page()).split('\n').filter((line) => line.startsWith('ring2_requests_t'))
    const collapsed = lines.filter((line) => line.includes('ring2_verdict="collapsed"'))
    expect(collapsed).toHaveLength(completenessStates.length)
    expect(lines.every((line) => / 0\.0$/.test(line))).toBe(true)
  })

  test('runs on, says so, and calls nothing ok', async () => {
    const line = exporter.logs().find(({ msg }) => msg.startsWith('cannot use the baselines'))
    expect(line?.error).toMatchObject({ code: 'RING2_E_BASELINE' })
    expect((await get(`${exporter.url}/readyz`)).status).toBe(200)
    expect(await text('/readyz')).toContain('RING2_E_BASELINE')
    const { verdict, missing } = await judged(1)
    expect(verdict).toBe('unknown')
    expect(missing.join()).toContain('RING2_E_BASELINE')
    expect(await page()).toMatch(
      /^ring2_verdict_uncalibrated_requests_total\{[^}]*error_type="damaged"[^}]*\} 1\.0$/m,
    )
  })

  test('goes on once it is mended, without a restart, with what was learnt of the model', async () => {
    const tiny = { model: 'tiny', revision: 'r1', dtype: 'float32', engine: 'test' }
    const at = new Date(0).toISOString()
    const learnt = { requests: 30, learnt_at: at, first_request_at: at, last_request_at: at }
    const quantiles = { n: 30, p0_1: 0.1, p1: 0.1, p50: 1, p99: 9, p99_9: 9 }
    const none = { globals: {}, layers: {} }
    const decode = { ...none, globals: { 'final_logits.entropy_mean': quantiles } }
    const baseline = { ...tiny, ...learnt, phases: { prefill: none, decode } }
    const document = { format: 'ring2-baselines', version: 2, baselines: [baseline] }
    writeFileSync(file, JSON.stringify(document))
    await vi.waitUntil(async () => !(await text('/readyz')).includes('RING2_E_BASELINE'), {
      timeout: 60_000,
      interval: 100,
    })
    expect(await judged(2)).toEqual({ verdict: 'ok', missing: [], baseline: 'calibrated' })
  })
})
