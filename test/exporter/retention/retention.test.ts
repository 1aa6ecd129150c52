import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import type { RequestSummary, TensorRow } from '../../../collector/records.ts'
import type { CatalogFile } from '../../../exporter/catalog/catalog.ts'
import { type Config, loadConfig } from '../../../exporter/config.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { createLogger } from '../../../exporter/logging.ts'
import { createRemovedCounts, startRetention } from '../../../exporter/retention/background.ts'
import { type PlannedRemoval, planRetention } from '../../../exporter/retention/plan.ts'
import { retentionPass } from '../../../exporter/retention/retention.ts'
import { type RetentionRules, readRules } from '../../../exporter/retention/rules.ts'
import { collectFamilies } from '../../../exporter/telemetry/metric-families.ts'
import { emptySnapshot } from '../../../exporter/telemetry/metric-points.ts'
import { exportCounts } from '../telemetry/fixtures.ts'
import {
  model,
  noonMicros,
  otherModel,
  request,
  row,
  summary,
  traceA,
  traceB,
} from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const noon = Date.parse('2026-03-10T12:00:00Z')

function configOf(environment: Record<string, string>): Config {
  return loadConfig({ environment }).config
}

function rulesOf(environment: Record<string, string>): RetentionRules {
  const rules = readRules(configOf(environment))
  if (rules === null) throw new Error('no rules')
  return rules
}

let ulids = 0

/** @param place folders behind the model, such as `date=2026-03-01/hour=05`. */
function file(dataset: string, slug: string, place: string, bytes = 100): CatalogFile {
  ulids += 1
  const ulid = String(ulids).padStart(26, '0')
  const key = `${dataset}/model_slug=${slug}/${place}/chat-00c0ffee-${ulid}.parquet`
  return { key, dataset, bytes, rows: 1, tail_start: null }
}

function plan(files: CatalogFile[], environment: Record<string, string>): string[] {
  const removals = planRetention(files, rulesOf(environment), noon)
  return removals.map(({ key, reason }) => `${files.findIndex((one) => one.key === key)} ${reason}`)
}

describe('Rules of retention', () => {
  test('are off by default', () => {
    expect(readRules(configOf({}))).toBeNull()
  })

  test('come from the environment, with sizes and ages by model', () => {
    const rules = rulesOf({
      RING2_RETENTION_MAX_AGE: '4w',
      RING2_RETENTION_MAX_BYTES: '500GiB',
      RING2_RETENTION_MODELS: 'org/a=b*=7d 50MiB, x?=12h, kept=keep, small=1024',
    })
    expect(rules.general).toEqual({ ageMillis: 28 * DAY, bytesMax: 500 * 2 ** 30 })
    expect(rules.models).toMatchObject([
      { ageMillis: 7 * DAY, bytesMax: 50 * 2 ** 20, keep: false },
      { ageMillis: 12 * HOUR, bytesMax: null },
      { ageMillis: null, bytesMax: null, keep: true },
      { ageMillis: null, bytesMax: 1024 },
    ])
    const [first, second] = rules.models
    expect([first?.matches('org-a-b7'), first?.matches('org-b')]).toEqual([true, false])
    expect([second?.matches('xy'), second?.matches('xyz')]).toEqual([true, false])
  })

  test.each([
    { RING2_RETENTION_MAX_AGE: '30' },
    { RING2_RETENTION_MAX_AGE: '-1d' },
    { RING2_RETENTION_MAX_AGE: '0d' },
    { RING2_RETENTION_MAX_BYTES: '5GB' },
    { RING2_RETENTION_MAX_BYTES: '0' },
    { RING2_RETENTION_MODELS: 'name' },
    { RING2_RETENTION_MODELS: '=7d' },
    { RING2_RETENTION_MODELS: 'name=7d 50GB' },
    { RING2_RETENTION_MODELS: 'name=50GiB 7d' },
  ])('that say nothing are refused: %o', (environment) => {
    expect(() => rulesOf(environment)).toThrow(Ring2Error)
    expect(() => rulesOf(environment)).toThrow(/RING2_E_CONFIG/)
  })
})

describe('The plan of retention', () => {
  test('takes a file when every row that it can hold is too old, the oldest first', () => {
    const files = [
      file('tensors', 'm', 'date=2026-03-09/hour=12'),
      file('tensors', 'm', 'date=2026-03-09/hour=11'),
      file('tensors', 'm', 'date=2026-03-08/hour=23'),
      file('requests', 'm', 'date=2026-03-09'),
      file('contexts', 'm', 'date=2026-03-08'),
    ]
    expect(plan(files, { RING2_RETENTION_MAX_AGE: '1d' })).toEqual(['2 age', '4 age', '1 age'])
  })

  test('takes the oldest tensors beyond a size, and nothing that only lists requests', () => {
    const files = [
      file('requests', 'm', 'date=2026-03-01', 50),
      file('tensors', 'm', 'date=2026-03-03/hour=01'),
      file('tensors', 'm', 'date=2026-03-01/hour=01'),
      file('tensors', 'n', 'date=2026-03-02/hour=01'),
    ]
    expect(plan(files, { RING2_RETENTION_MAX_BYTES: '350' })).toEqual([])
    expect(plan(files, { RING2_RETENTION_MAX_BYTES: '349' })).toEqual(['2 size'])
    expect(plan(files, { RING2_RETENTION_MAX_BYTES: '1' })).toEqual(['2 size', '3 size', '1 size'])
  })

  test('bounds each model by its own rule, and keeps what is to be kept', () => {
    const files = [
      file('tensors', 'org-a', 'date=2026-03-01/hour=01'),
      file('tensors', 'org-a', 'date=2026-03-02/hour=01'),
      file('tensors', 'kept', 'date=2026-01-01/hour=01'),
      file('tensors', 'other', 'date=2026-03-09/hour=01'),
      file('tensors', 'other', 'date=2026-02-01/hour=01'),
    ]
    const rules = {
      RING2_RETENTION_MAX_AGE: '7d',
      RING2_RETENTION_MODELS: 'org/*=30d 150,kept=keep',
    }
    expect(plan(files, rules)).toEqual(['4 age', '0 size'])
    const bytes = { ...rules, RING2_RETENTION_MAX_BYTES: '100' }
    expect(plan(files, bytes)).toEqual(['4 age', '0 size', '1 size', '3 size'])
  })

  test('keeps a vocabulary as long as anything else of its model', () => {
    const files = [
      file('vocabularies', 'm', 'date=2026-01-01'),
      file('tensors', 'm', 'date=2026-03-10/hour=01'),
      file('vocabularies', 'n', 'date=2026-01-01'),
      file('tensors', 'n', 'date=2026-01-02/hour=01'),
    ]
    expect(plan(files, { RING2_RETENTION_MAX_AGE: '7d' })).toEqual(['2 age', '3 age'])
  })

  test('leaves files alone whose key tells no time', () => {
    const odd = file('tensors', 'm', 'date=2026-99-99/hour=01')
    expect(plan([odd], { RING2_RETENTION_MAX_AGE: '1d' })).toEqual([])
  })
})

function storeOf(rows: readonly TensorRow[], summaries: readonly RequestSummary[]) {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush(rows, summaries)
  const { location, store, catalog } = fixture
  const removed: PlannedRemoval[] = []
  const onRemoved = (removal: PlannedRemoval) => void removed.push(removal)
  const pass = (rules: RetentionRules, nowMillis: number, filesMax?: number) =>
    retentionPass({ location, store, catalog, rules, onRemoved }, nowMillis, filesMax)
  return { ...fixture, root, removed, pass }
}

const hourAfter = noonMicros / 1000 + HOUR
const dayAfter = noonMicros / 1000 + DAY

describe('A pass of retention', () => {
  const aged = rulesOf({ RING2_RETENTION_MAX_AGE: '1h' })

  test('removes tensors first; their request stays listed until its own age has passed', async () => {
    const { pass, catalog, root } = storeOf([row()], [summary()])
    expect(await pass(aged, noonMicros / 1000)).toMatchObject({ files: 0 })
    expect(await pass(aged, hourAfter + HOUR)).toMatchObject({ files: 1, requests: 0 })
    expect(catalog.requests(traceA)).toMatchObject([{ tensors_stored: 0, verdict: 'ok' }])
    expect(await pass(aged, dayAfter + HOUR)).toMatchObject({ files: 1, requests: 1, left: 0 })
    expect(catalog.requests(traceA)).toEqual([])
    expect(catalog.files()).toEqual([])
    const left = readdirSync(root, { recursive: true, encoding: 'utf8' })
    expect(left.filter((entry) => entry.endsWith('.parquet'))).toEqual([])
  })

  test('removes a bounded number of files, and says how many are left', async () => {
    const other = request({ traceId: traceB, requestId: 'request-2' })
    const { pass, removed, catalog } = storeOf(
      [row(), row({ request: other, model: otherModel })],
      [summary(), summary({ request: other, model: otherModel })],
    )
    expect(await pass(aged, dayAfter + HOUR, 3)).toMatchObject({ files: 3, left: 1, requests: 0 })
    expect(removed).toHaveLength(3)
    expect(await pass(aged, dayAfter + HOUR, 3)).toMatchObject({ files: 1, left: 0, requests: 2 })
    expect(catalog.files()).toEqual([])
  })

  test('of one model leaves the other as it is', async () => {
    const other = request({ traceId: traceB, requestId: 'request-2' })
    const { pass, catalog } = storeOf(
      [row(), row({ request: other, model: otherModel })],
      [summary(), summary({ request: other, model: otherModel })],
    )
    const rules = rulesOf({ RING2_RETENTION_MODELS: `${model.name}=1h` })
    expect(await pass(rules, dayAfter + HOUR)).toMatchObject({ files: 2, requests: 1 })
    expect(catalog.requests(traceA)).toEqual([])
    expect(catalog.requests(traceB)).toMatchObject([{ tensors_stored: 1 }])
  })

  test('that the store refuses is an error, and the catalogue keeps what is there', async () => {
    const { location, store, catalog } = storeOf([row()], [summary()])
    const refusing = {
      ...store,
      delete: async () => ({ status: 'failure', error: new Error('no') }) as const,
    }
    const facts = { location, store: refusing, catalog, rules: aged, onRemoved: () => undefined }
    await expect(retentionPass(facts, dayAfter + HOUR)).rejects.toThrow('no')
    expect(catalog.files()).toHaveLength(2)
  })
})

describe('Retention of a running exporter', () => {
  test('removes by itself, counts by reason, and ends when it is told', async () => {
    const { location, store, catalog } = storeOf([row()], [summary()])
    const counts = createRemovedCounts()
    const retention = startRetention({
      context: { location, store, bucket: null, catalog, fsync: false },
      rules: rulesOf({ RING2_RETENTION_MAX_AGE: '1h' }),
      logger: createLogger({ level: 'error', format: 'json' }),
      onRemoved: counts.add,
    })
    await vi.waitUntil(() => catalog.files().length === 0, { timeout: 30_000 })
    await retention.stop()
    expect(counts.counts()).toMatchObject({ age: { files: 2 }, size: { files: 0, bytes: 0 } })
    const { bytes } = counts.counts().age
    expect(bytes).toBeGreaterThan(100)
    const snapshot = { ...emptySnapshot(noonMicros), removed: counts.counts() }
    const families = collectFamilies(snapshot, exportCounts())
    const pointsOf = (name: string) =>
      families
        .find(({ definition }) => definition.name === name)
        ?.numbers.map(({ attributes, value }) => [attributes['ring2.removal.reason'], value])
    expect(pointsOf('ring2.store.removed.files')).toEqual([
      ['age', 2],
      ['size', 0],
    ])
    expect(pointsOf('ring2.store.removed.io')).toEqual([
      ['age', bytes],
      ['size', 0],
    ])
    expect(readdirSync(join(location.catalog, '..'))).toContain('catalog.sqlite')
  })
})
