/** `ring2-exporter calibrate`: learns what is healthy for each model from the requests kept. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import {
  type Baseline,
  createLearner,
  type Learner,
  type Learnt,
  type LearntQuantiles,
  type RequestSummary,
  sameIdentity,
} from '../../collector/index.ts'
import { readBaselines, writeBaselines } from '../baselines.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { Ring2Error } from '../errors.ts'
import { calibrateLimits } from '../limits.ts'
import { openTensors } from '../tensors/open.ts'
import { parseSince } from '../tensors/selection.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'
import { numberText, styles, table } from './table.ts'

interface CalibrateOptions extends ConfigOptions {
  readonly since?: string
  readonly model?: string
  readonly minRequests?: string
  readonly includeBroken?: boolean
  readonly dryRun?: boolean
  readonly output?: string
  readonly json?: boolean
}

export function calibrateCommand(command: Command): void {
  withConfig(command)
    .description('learn the bounds of healthy requests, per model, from the requests kept')
    .option(
      '--since <time>',
      'only requests since then: 24h, or a time such as 2026-01-31T12:00:00Z',
    )
    .option('--model <name>', 'only requests of this model')
    .option(
      '--min-requests <count>',
      `fewest requests to learn from (default: ${calibrateLimits.requestsDefault})`,
    )
    .option('--include-broken', 'learn from requests with findings too: they are healthy after all')
    .option('--dry-run', 'show what would be learnt, and write nothing')
    .option('-o, --output <file>', 'file to write (default: verdict.baselines)')
    .option('--json', 'print one JSON document')
    .action(async (options: CalibrateOptions) => {
      process.exitCode = await calibrate(options)
    })
}

async function calibrate(options: CalibrateOptions): Promise<number> {
  const { config } = configFrom(options)
  const requestsMin = parseMinimum(options.minRequests)
  const path = options.output === undefined ? config.verdict.baselines : resolve(options.output)
  // A damaged file is not overwritten: it may hold what was learnt of other models.
  const before = readBaselines(path) ?? []
  const { catalog } = await openTensors(config)
  const learner = createLearner(options.includeBroken)
  const read = readRequests(catalog, options, learner)
  catalog.close()
  const models = learner.finish(requestsMin, new Date())
  const learnt = models.flatMap(({ baseline }) => (baseline === null ? [] : [baseline]))
  if (learnt.length === 0) throw tooFew(models, learner, requestsMin)
  if (options.dryRun !== true) writeBaselines(path, merge(before, learnt))
  report(models, learner, options, path)
  if (read.more) tell(`only the newest ${calibrateLimits.requestsMax} requests were read`)
  return learnt.length < models.length ? exitCodes.incomplete : exitCodes.done
}

function parseMinimum(text: string | undefined): number {
  if (text === undefined) return calibrateLimits.requestsDefault
  const count = Number(text)
  if (Number.isSafeInteger(count) && count >= calibrateLimits.requestsMin) return count
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `a whole number from ${calibrateLimits.requestsMin} on as --min-requests`,
    actual: JSON.stringify(text),
  })
}

function readRequests(catalog: Catalog, options: CalibrateOptions, learner: Learner) {
  const filter = {
    ...(options.since === undefined ? {} : { sinceMicros: parseSince(options.since, Date.now()) }),
    ...(options.model === undefined ? {} : { model: options.model }),
  }
  let read = 0
  let cursor: string | null = null
  do {
    const page = catalog.list({
      ...filter,
      ...(cursor === null ? {} : { cursor }),
      limit: calibrateLimits.pageRequests,
    })
    for (const { summary } of page.requests) {
      if (summary !== null) learner.add(JSON.parse(summary) as RequestSummary)
    }
    read += page.requests.length
    cursor = page.nextCursor
  } while (cursor !== null && read < calibrateLimits.requestsMax)
  return { more: cursor !== null }
}

function merge(before: readonly Baseline[], learnt: readonly Baseline[]): Baseline[] {
  const kept = before.filter((old) => !learnt.some((one) => sameIdentity(one, old)))
  return [...kept, ...learnt].sort((a, b) => a.model.localeCompare(b.model, 'en'))
}

function tooFew(models: readonly Learnt[], learner: Learner, requestsMin: number): Ring2Error {
  const found = models.map((one) => `${one.requests} of ${identityText(one)}`)
  return new Ring2Error('RING2_E_CALIBRATE', {
    expected: `at least ${requestsMin} complete requests of one model, revision, dtype and engine`,
    actual: `${found.join(', ') || 'none'}; ${leftOutText(learner)}`,
  })
}

function identityText({ model }: Learnt): string {
  const { name, revision, dtype, engine } = model
  return [name, revision === '' ? 'no revision' : revision, dtype, engine].join(', ')
}

function leftOutText(learner: Learner): string {
  const {
    nonfinite,
    broken,
    incomplete,
    unknown_model: unknown,
    without_phases,
  } = learner.leftOut()
  const known = `${nonfinite} nonfinite, ${broken} found broken, ${incomplete} incomplete`
  const other = `${unknown} without a model, ${without_phases} of an older exporter`
  const hint = broken > 0 ? '; --include-broken takes those found broken, too' : ''
  return `left out: ${known}, ${other}${hint}`
}

function report(
  models: readonly Learnt[],
  learner: Learner,
  { json, dryRun }: CalibrateOptions,
  path: string,
): void {
  const written = dryRun === true ? null : path
  if (json === true) {
    printJson({
      written,
      left_out: learner.leftOut(),
      models: models.map((one) => ({
        model: one.model.name,
        revision: one.model.revision,
        dtype: one.model.dtype,
        engine: one.model.engine,
        requests: one.requests,
        learnt: one.baseline !== null,
        findings: one.findings,
        baseline: one.baseline,
      })),
    })
    return
  }
  for (const one of models) {
    print(`${identityText(one)}: ${one.requests} requests`)
    if (one.baseline === null)
      tell('  too few to learn from, or nothing judged; its requests keep the bounds they had')
    else print(`${quantileTable(one.baseline, one.findings)}\n`)
  }
  tell(leftOutText(learner))
  tell(written === null ? 'nothing was written' : `written to ${written}`)
}

function quantileTable(baseline: Baseline, findings: Learnt['findings']): string {
  const rows = (['prefill', 'decode'] as const).flatMap((phase) => {
    const { globals, layers } = baseline.phases[phase]
    return [
      ...Object.entries(globals).map(([name, one]) => ({ name, phase, of: [one] })),
      ...Object.entries(layers).map(([name, series]) => ({
        name,
        phase,
        of: series.filter((one) => one !== null),
      })),
    ]
  })
  const learnt = new Set(rows.map(({ name, phase }) => `${phase} ${name}`))
  const unlearnt = Object.entries(findings).filter(([name]) => !learnt.has(name))
  return table(
    [
      { title: 'STATISTIC' },
      { title: 'PHASE' },
      { title: 'LAYERS', right: true },
      { title: 'N', right: true },
      { title: 'P1', right: true },
      { title: 'MEDIAN', right: true },
      { title: 'P99', right: true },
      { title: 'FINDINGS', right: true },
    ],
    [
      ...rows.map(({ name, phase, of }) => [
        name,
        phase,
        String(of.length),
        String(Math.min(...of.map(({ n }) => n))),
        numberText(Math.min(...of.map(({ p1 }) => p1)), 3),
        numberText(middle(of), 3),
        numberText(Math.max(...of.map(({ p99 }) => p99)), 3),
        String(findings[`${phase} ${name}`] ?? 0),
      ]),
      // Found by bounds that are built in, such as loops.
      ...unlearnt.map(([name, count]) => [name, '–', '–', '–', '–', '–', '–', String(count)]),
    ],
    styles().bold,
  )
}

/** The median layer's median. */
function middle(of: readonly LearntQuantiles[]): number | undefined {
  return of.map(({ p50 }) => p50).sort((a, b) => a - b)[Math.floor(of.length / 2)]
}
