/**
 * Sums up the slices of one request: per hook and layer, means weighted by rows, maxima, counts.
 *
 * What rules read is summed up a second time per phase: the tokens of a long prompt would hide what
 * becomes of an answer. Plain state that survives a checkpoint as JSON; the statistics themselves
 * are computed natively.
 */
import type { Phase, PhaseStatistics, SliceStatistics } from './records.ts'
import { ruleStatistics } from './verdict-rules.ts'

/** `last`: the statistic is over all tokens so far. `sum`: a count. */
export type Combination = 'mean' | 'max' | 'min' | 'sum' | 'last'

/** How a statistic of several slices becomes one of the request. */
const combinations: readonly [keyof SliceStatistics, string, Combination][] = [
  ['l2Mean', 'l2_mean', 'mean'],
  ['l2Max', 'l2_max', 'max'],
  ['rmsMean', 'rms_mean', 'mean'],
  ['absMax', 'abs_max', 'max'],
  ['entropyMean', 'entropy_mean', 'mean'],
  ['entropyMin', 'entropy_min', 'min'],
  ['entropyMax', 'entropy_max', 'max'],
  ['lseMean', 'lse_mean', 'mean'],
  ['top1ProbabilityMean', 'top1_probability_mean', 'mean'],
  ['marginMean', 'margin_mean', 'mean'],
  ['entropyNormalizedMean', 'entropy_normalized_mean', 'mean'],
  ['entropyNoSinkMean', 'entropy_no_sink_mean', 'mean'],
  ['sinkMass', 'sink_mass', 'mean'],
  ['sinkScore', 'sink_score', 'mean'],
  ['kurtosisMean', 'kurtosis_mean', 'mean'],
  ['kurtosisMax', 'kurtosis_max', 'max'],
  ['outlierRatio', 'outlier_ratio', 'max'],
  ['massiveCount', 'massive_count', 'sum'],
  ['nearZeroShare', 'near_zero_share', 'mean'],
  ['zeroShare', 'zero_share', 'mean'],
  ['l2NoFirstMean', 'l2_no_first_mean', 'mean'],
  ['headEntropyMin', 'head_entropy_min', 'min'],
  ['collapsedHeadShare', 'collapsed_head_share', 'max'],
  ['rowSumError', 'row_sum_error', 'max'],
  ['sinkMass4', 'sink_mass_4', 'mean'],
  ['topKeyMass', 'top_key_mass', 'mean'],
  ['previousTokenMass', 'previous_token_mass', 'mean'],
  ['selfMass', 'self_mass', 'mean'],
  ['recencyMass', 'recency_mass', 'mean'],
  ['lookbackRatio', 'lookback_ratio', 'mean'],
  ['varentropyMean', 'varentropy_mean', 'mean'],
  ['marginProbabilityMean', 'margin_probability_mean', 'mean'],
  ['surprisalMean', 'surprisal_mean', 'mean'],
  ['repetition', 'repetition', 'last'],
  ['loopPeriod', 'loop_period', 'last'],
  ['tokensTracked', 'tokens_tracked', 'last'],
  ['layerCosineMean', 'layer_cosine_mean', 'mean'],
  ['layerCosineMin', 'layer_cosine_min', 'min'],
  ['layerGrowthMean', 'layer_growth_mean', 'mean'],
  ['contributionMean', 'contribution_mean', 'mean'],
  ['tokenCosineMean', 'token_cosine_mean', 'max'],
  ['rankResidual', 'rank_residual', 'min'],
  ['participationRatio', 'participation_ratio', 'min'],
  ['routerEntropyMean', 'router_entropy_mean', 'mean'],
  ['expertEntropyMean', 'expert_entropy_mean', 'mean'],
  ['tokenOutlier', 'token_outlier', 'max'],
  ['channelOutlier', 'channel_outlier', 'max'],
  ['firstTokenRatio', 'first_token_ratio', 'mean'],
]

/** Visible keys that a query needs to count in a mean (docs/statistics.md); 1 where not named. */
const keysNeeded: Partial<Record<keyof SliceStatistics, number>> = {
  entropyNormalizedMean: 2,
  entropyNoSinkMean: 3,
  sinkMass: 2,
  l2NoFirstMean: 2,
  sinkMass4: 5,
  previousTokenMass: 2,
  recencyMass: 17,
}

interface Plan {
  readonly index: number
  readonly name: string
  readonly combination: Combination
  /** Query i sees i + 1 keys; those before this one do not count. */
  readonly firstQuery: number
}

const plans = new Map<string, Plan>(
  combinations.map(([key, name, combination], index) => [
    key,
    { index, name, combination, firstQuery: (keysNeeded[key] ?? 1) - 1 },
  ]),
)

export interface Cell {
  value: number
  weight: number
}

/** `<hook>.<statistic>` → layer → value. */
export type Cells = Map<string, Map<number, Cell>>

/** The cells of one hook, layer and phase by the index of their plan, so that slices find them. */
interface Series {
  readonly cells: (Cell | undefined)[]
  /** Only what rules read. */
  readonly phaseCells: (Cell | undefined)[]
}

/** `<hook>` → layer + 1 → series. */
type SeriesIndex = Readonly<Record<Phase, Map<string, (Series | undefined)[]>>>

export interface RequestStatistics {
  readonly cells: Cells
  /** Only what rules read. */
  readonly phases: Readonly<Record<Phase, Cells>>
  /** `<hook>` → layer → slices seen. */
  readonly seen: Map<string, Map<number, number>>
  /** Leads to the cells above; not part of the state. */
  readonly index: SeriesIndex
  nan: number
  posInf: number
  negInf: number
}

export function createStatistics(): RequestStatistics {
  const phases = { prefill: new Map(), decode: new Map() }
  const index = createIndex()
  return { cells: new Map(), phases, seen: new Map(), index, nan: 0, posInf: 0, negInf: 0 }
}

function createIndex(): SeriesIndex {
  return { prefill: new Map(), decode: new Map() }
}

function layersOf<T>(map: Map<string, Map<number, T>>, name: string): Map<number, T> {
  let layers = map.get(name)
  if (layers === undefined) {
    layers = new Map()
    map.set(name, layers)
  }
  return layers
}

export function countSlice(statistics: RequestStatistics, hook: string, layer: number): void {
  const layers = layersOf(statistics.seen, hook)
  layers.set(layer, (layers.get(layer) ?? 0) + 1)
}

/** One slice: the tokens [tokenStart, tokenEnd) of a request. */
export interface MeasuredSlice {
  readonly hook: string
  readonly layer: number
  readonly phase: Phase
  readonly tokenStart: number
  readonly tokenEnd: number
  readonly statistics: SliceStatistics
}

export function addSlice(statistics: RequestStatistics, slice: MeasuredSlice): void {
  const { tokenStart, tokenEnd } = slice
  const series = seriesOf(statistics.index[slice.phase], slice.hook, slice.layer)
  for (const key of Object.keys(slice.statistics) as (keyof SliceStatistics)[]) {
    const plan = plans.get(key)
    const value = slice.statistics[key]
    if (plan === undefined || value === undefined) continue
    // Rows that a mean is over.
    const rows = tokenEnd - Math.max(tokenStart, plan.firstQuery)
    const cell = series.cells[plan.index]
    const phaseCell = series.phaseCells[plan.index]
    if (cell === undefined) start(statistics, series, slice, plan, { value, weight: rows })
    else addValue(cell, plan.combination, value, rows)
    if (phaseCell !== undefined) addValue(phaseCell, plan.combination, value, rows)
  }
}

function seriesOf(index: Map<string, (Series | undefined)[]>, hook: string, layer: number): Series {
  let layers = index.get(hook)
  if (layers === undefined) {
    layers = []
    index.set(hook, layers)
  }
  const known = layers[layer + 1]
  if (known !== undefined) return known
  const series = { cells: [], phaseCells: [] }
  layers[layer + 1] = series
  return series
}

/** The first value of a statistic of this series; the request may have had it in another phase. */
function start(
  statistics: RequestStatistics,
  series: Series,
  { hook, layer, phase }: MeasuredSlice,
  { index, name, combination }: Plan,
  first: Readonly<Cell>,
): void {
  const full = `${hook}.${name}`
  series.cells[index] = startCell(layersOf(statistics.cells, full), layer, combination, first)
  if (!ruleStatistics.has(full)) return
  const phaseLayers = layersOf(statistics.phases[phase], full)
  series.phaseCells[index] = startCell(phaseLayers, layer, combination, first)
}

function startCell(
  layers: Map<number, Cell>,
  layer: number,
  combination: Combination,
  { value, weight }: Readonly<Cell>,
): Cell {
  const known = layers.get(layer)
  if (known !== undefined) {
    addValue(known, combination, value, weight)
    return known
  }
  const cell = { value: combination === 'mean' ? value * weight : value, weight }
  layers.set(layer, cell)
  return cell
}

function addValue(cell: Cell, combination: Combination, value: number, rows: number): void {
  if (combination === 'mean') {
    cell.value += value * rows
    cell.weight += rows
  } else {
    cell.value = combine(combination, cell.value, value)
  }
}

function combine(combination: Exclude<Combination, 'mean'>, before: number, value: number) {
  if (combination === 'max') return Math.max(before, value)
  if (combination === 'min') return Math.min(before, value)
  return combination === 'sum' ? before + value : value
}

const byName = new Map(combinations.map(([, name, combination]) => [name, combination]))

/** How values of a statistic are combined; undefined for a name that is none. */
export function combinationOf(statistic: string): Combination | undefined {
  return byName.get(statistic)
}

function finish(name: string, cell: Cell): number {
  const statistic = name.slice(name.indexOf('.') + 1)
  return combinationOf(statistic) === 'mean' ? cell.value / cell.weight : cell.value
}

export interface StatisticsSummary {
  readonly layerSeries: Record<string, (number | null)[]>
  readonly globals: Record<string, number>
}

/** Series over the layers 0 … n−1, null where no value came; global hooks apart. */
export function summarize({ cells }: Pick<RequestStatistics, 'cells'>): StatisticsSummary {
  const layerSeries: Record<string, (number | null)[]> = {}
  const globals: Record<string, number> = {}
  for (const [name, layers] of cells) {
    const global = layers.get(-1)
    if (global !== undefined) globals[name] = finish(name, global)
    const last = Math.max(...layers.keys())
    if (last < 0) continue
    layerSeries[name] = Array.from({ length: last + 1 }, (_, layer) => {
      const cell = layers.get(layer)
      return cell === undefined ? null : finish(name, cell)
    })
  }
  return { layerSeries, globals }
}

/** What rules read, over one phase. */
export function summarizePhase(statistics: RequestStatistics, phase: Phase): PhaseStatistics {
  const cells = statistics.phases[phase]
  const logitRows = cells.get('final_logits.entropy_mean')?.get(-1)?.weight ?? 0
  return { logitRows, ...summarize({ cells }) }
}

type Entries<T> = [string, [number, T][]][]

/** The state as JSON, and back. */
export interface StoredStatistics {
  readonly cells: Entries<Cell>
  /** Checkpoints of older exporters have none. */
  readonly phases?: Readonly<Record<Phase, Entries<Cell>>>
  readonly seen: Entries<number>
  readonly nan: number
  readonly posInf: number
  readonly negInf: number
}

export function storeStatistics(statistics: RequestStatistics): StoredStatistics {
  const entries = <T>(map: Map<string, Map<number, T>>): Entries<T> =>
    Array.from(map, ([name, layers]) => [name, Array.from(layers)])
  const { nan, posInf, negInf } = statistics
  return {
    cells: entries(statistics.cells),
    phases: {
      prefill: entries(statistics.phases.prefill),
      decode: entries(statistics.phases.decode),
    },
    seen: entries(statistics.seen),
    ...{ nan, posInf, negInf },
  }
}

export function restoreStatistics(stored: StoredStatistics): RequestStatistics {
  const maps = <T>(entries: Entries<T>) =>
    new Map(entries.map(([name, layers]) => [name, new Map(layers)]))
  const { prefill = [], decode = [] } = stored.phases ?? {}
  return {
    ...stored,
    index: createIndex(),
    cells: maps(stored.cells),
    phases: { prefill: maps(prefill), decode: maps(decode) },
    seen: maps(stored.seen),
  }
}
