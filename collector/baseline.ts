/**
 * Baselines: what healthy requests of a model look like. Reads and checks their JSON, and chooses
 * the one of a model. It touches no file.
 *
 * An entry is for one model name, revision, dtype and engine, and is used for no other. A document
 * that is not whole in every part is refused as a whole: half a baseline is no baseline.
 */
import { Ring2Error } from './errors.ts'
import { hooks } from './hooks.gen.ts'
import type { ModelInfo, Phase } from './records.ts'
import { judgedName, judgedStatistics } from './verdict-rules.ts'

export const BASELINE_FORMAT = 'ring2-baselines'
export const BASELINE_VERSION = 2

/** Bounds on what a document may hold, so that a damaged one cannot fill the memory. */
export const baselineLimits = {
  bytesMax: 64 * 1024 * 1024,
  entriesMax: 1000,
  statisticsMax: 1000,
  layersMax: 1024,
} as const

/** Quantiles of a statistic over `n` requests, one value per request; not falling. */
export interface LearntQuantiles {
  readonly n: number
  readonly p0_1: number
  readonly p1: number
  readonly p50: number
  readonly p99: number
  readonly p99_9: number
}

export interface PhaseBounds {
  /** `<hook>.<statistic>` of global hooks. */
  readonly globals: Readonly<Record<string, LearntQuantiles>>
  /** `<hook>.<statistic>` → one per layer, null where there was no value. */
  readonly layers: Readonly<Record<string, readonly (LearntQuantiles | null)[]>>
}

export interface LearntBounds {
  readonly phases: Readonly<Record<Phase, PhaseBounds>>
}

export interface Baseline extends LearntBounds {
  readonly model: string
  readonly revision: string
  readonly dtype: string
  readonly engine: string
  /** Requests learnt from. */
  readonly requests: number
  /** ISO 8601: when it was learnt, and when the first and last of the requests began. */
  readonly learnt_at: string
  readonly first_request_at: string
  readonly last_request_at: string
}

export interface BaselineDocument {
  readonly format: typeof BASELINE_FORMAT
  readonly version: typeof BASELINE_VERSION
  readonly baselines: readonly Baseline[]
}

/** Why a model has no baseline: an entry that differs in one thing, or none at all. */
export type BaselineMiss = 'other_revision' | 'other_dtype' | 'other_engine' | 'no_entry'

export type BaselineChoice =
  | { readonly found: true; readonly baseline: Baseline }
  | { readonly found: false; readonly miss: BaselineMiss }

type Identity = Pick<Baseline, 'model' | 'revision' | 'dtype' | 'engine'>

export function identityOf(model: ModelInfo): Identity {
  const { name, revision, dtype, engine } = model
  return { model: name, revision, dtype, engine }
}

export function sameIdentity(a: Identity, b: Identity): boolean {
  return (
    a.model === b.model && a.revision === b.revision && a.dtype === b.dtype && a.engine === b.engine
  )
}

export function chooseBaseline(baselines: readonly Baseline[], model: ModelInfo): BaselineChoice {
  const wanted = identityOf(model)
  const baseline = baselines.find((one) => sameIdentity(one, wanted))
  if (baseline !== undefined) return { found: true, baseline }
  const named = baselines.filter((one) => one.model === wanted.model)
  const nearest = named
    .map((one) => missOf(one, wanted))
    .sort((a, b) => misses.indexOf(a) - misses.indexOf(b))[0]
  return { found: false, miss: nearest ?? 'no_entry' }
}

/** The smallest difference first. */
const misses: readonly BaselineMiss[] = ['other_engine', 'other_dtype', 'other_revision']

function missOf(entry: Identity, wanted: Identity): BaselineMiss {
  if (entry.revision !== wanted.revision) return 'other_revision'
  return entry.dtype === wanted.dtype ? 'other_engine' : 'other_dtype'
}

/**
 * Reads a document.
 *
 * @param where names the file in errors.
 * @throws Ring2Error RING2_E_BASELINE that names the place of the first fault.
 */
export function parseBaselines(text: string, where: string): readonly Baseline[] {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (cause) {
    const actual = cause instanceof Error ? cause.message : String(cause)
    throw new Ring2Error('RING2_E_BASELINE', { expected: `JSON in ${where}`, actual, cause })
  }
  const facts = objectAt(document, where)
  expect(facts.format === BASELINE_FORMAT, where, 'format', BASELINE_FORMAT, facts.format)
  expect(facts.version === BASELINE_VERSION, where, 'version', BASELINE_VERSION, facts.version)
  const entries = arrayAt(facts.baselines, `${where}: baselines`, baselineLimits.entriesMax)
  const baselines = entries.map((entry, index) =>
    parseEntry(entry, `${where}: baselines[${index}]`),
  )
  for (const [index, one] of baselines.entries()) {
    const twin = baselines.findIndex((other) => sameIdentity(one, other))
    expect(twin === index, where, `baselines[${index}]`, 'another model', `that of [${twin}]`)
  }
  return baselines
}

function parseEntry(entry: unknown, place: string): Baseline {
  const facts = objectAt(entry, place)
  const text = (name: string): string => {
    const value = facts[name]
    expect(typeof value === 'string', place, name, 'a text', value)
    return value as string
  }
  const requests = facts.requests
  expect(isCount(requests), place, 'requests', 'a whole number above 0', requests)
  const phasesAt = `${place}.phases`
  const phases = objectAt(facts.phases, phasesAt)
  const both = {
    prefill: parsePhase(phases.prefill, `${phasesAt}.prefill`, 'prefill'),
    decode: parsePhase(phases.decode, `${phasesAt}.decode`, 'decode'),
  }
  const bounded = hasBounds({ phases: both })
  expect(bounded, place, 'phases', 'quantiles of at least one statistic', 'none')
  return {
    model: text('model'),
    revision: text('revision'),
    dtype: text('dtype'),
    engine: text('engine'),
    requests: requests as number,
    learnt_at: text('learnt_at'),
    first_request_at: text('first_request_at'),
    last_request_at: text('last_request_at'),
    phases: both,
  }
}

/** Whether anything was learnt: without it every bound would be a built-in one. */
export function hasBounds({ phases }: LearntBounds): boolean {
  return Object.values(phases).some(
    ({ globals, layers }) =>
      Object.keys(globals).length > 0 ||
      Object.values(layers).some((series) => series.some((one) => one !== null)),
  )
}

function parsePhase(value: unknown, place: string, phase: Phase): PhaseBounds {
  const facts = objectAt(value, place)
  return {
    globals: mapAt(facts.globals, `${place}.globals`, (one, where, name) =>
      parseQuantiles(one, where, rangeOf(name, phase, false, where)),
    ),
    layers: mapAt(facts.layers, `${place}.layers`, (series, where, name) => {
      const range = rangeOf(name, phase, true, where)
      return arrayAt(series, where, baselineLimits.layersMax).map((one, layer) =>
        one === null ? null : parseQuantiles(one, `${where}[${layer}]`, range),
      )
    }),
  }
}

type Range = readonly [number, number]

const layered = new Map(hooks.map((hook) => [hook.name, hook.layered]))

/** Values that a statistic can have. A name that no rule reads would bound nothing, unnoticed. */
function rangeOf(name: string, phase: Phase, ofLayers: boolean, place: string): Range {
  const known = judgedStatistics.find(
    (one) =>
      judgedName(one) === name &&
      one.phases.includes(phase) &&
      (layered.get(one.hook) ?? false) === ofLayers,
  )
  if (known !== undefined) return known.range
  const kind = ofLayers ? 'layers' : 'the whole model'
  throw fault(place, `a statistic of ${kind} that is judged in ${phase}`, name)
}

const quantileNames = ['p0_1', 'p1', 'p50', 'p99', 'p99_9'] as const

function parseQuantiles(value: unknown, place: string, [low, high]: Range): LearntQuantiles {
  const facts = objectAt(value, place)
  expect(isCount(facts.n), place, 'n', 'a whole number above 0', facts.n)
  let before = low
  for (const name of quantileNames) {
    const one = facts[name]
    const fits = typeof one === 'number' && one >= before && one <= high
    const expected = `a number from ${low} to ${high}, not below the quantile before`
    expect(fits, place, name, expected, one)
    before = one as number
  }
  const { n, p0_1, p1, p50, p99, p99_9 } = facts as unknown as LearntQuantiles
  return { n, p0_1, p1, p50, p99, p99_9 }
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) > 0
}

function objectAt(value: unknown, place: string): Record<string, unknown> {
  const fits = typeof value === 'object' && value !== null && !Array.isArray(value)
  if (!fits) throw fault(place, 'an object', value)
  return value as Record<string, unknown>
}

function arrayAt(value: unknown, place: string, lengthMax: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= lengthMax) return value
  const actual = Array.isArray(value) ? `${value.length} of them` : value
  throw fault(place, `a list of at most ${lengthMax}`, actual)
}

function mapAt<T>(
  value: unknown,
  place: string,
  parse: (value: unknown, place: string, name: string) => T,
): Record<string, T> {
  const entries = Object.entries(objectAt(value, place))
  if (entries.length > baselineLimits.statisticsMax) {
    throw fault(place, `at most ${baselineLimits.statisticsMax} statistics`, entries.length)
  }
  return Object.fromEntries(
    entries.map(([name, one]) => [name, parse(one, `${place}.${name}`, name)]),
  )
}

function expect(fits: boolean, place: string, name: string, expected: unknown, actual: unknown) {
  if (!fits) throw fault(`${place}: ${name}`, String(expected), actual)
}

function fault(place: string, expected: string, actual: unknown): Ring2Error {
  const shown = (JSON.stringify(actual) ?? 'nothing').slice(0, 120)
  return new Ring2Error('RING2_E_BASELINE', { expected: `${expected} as ${place}`, actual: shown })
}
