/** `ring2-exporter rings`: the live segments of this machine, read without taking them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { readSegments, type SegmentInfo } from '../../collector/index.ts'
import { exporterState, producerState, ringsDocument } from '../rings.ts'
import { createRanksOf, placeText, type RanksOf } from '../segment-ranks.ts'
import { storeLocation } from '../tensors/open.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, outputGone, print, printJson, tell } from './outcome.ts'
import { bytesText, styles, table } from './table.ts'

interface RingsOptions extends ConfigOptions {
  readonly watch?: boolean
  readonly json?: boolean
}

const watchMillis = 1000

/** ECMA-48: cursor to the top left, then erase to the end of the screen. */
const clearScreen = '\u001b[H\u001b[J'

export function ringsCommand(command: Command): void {
  withConfig(command)
    .description('show live segments: producer, occupancy, rates, losses')
    .option('--watch', 'again every second, with rates')
    .option('--json', 'print one JSON document')
    .action(async (options: RingsOptions) => {
      process.exitCode = await rings(options)
    })
}

async function rings(options: RingsOptions): Promise<number> {
  const { config } = configFrom(options)
  const { directory, names } = config.segments
  const ranksOf = createRanksOf(storeLocation(config).spool)
  if (options.json === true) {
    printJson(ringsDocument(directory, names, ranksOf))
    return exitCodes.done
  }
  if (options.watch === true) await watch(directory, names, ranksOf)
  else show(readSegments(directory, names), { rate: () => '–', ranksOf }, nothing(directory, names))
  return exitCodes.done
}

/** Until a signal, or until nobody reads the output any more. */
async function watch(directory: string, names: readonly string[], ranksOf: RanksOf): Promise<void> {
  const terminal = process.stdout.isTTY === true
  let before: Reading | null = null
  while (!outputGone()) {
    const found = readSegments(directory, names)
    const now: Reading = { at: performance.now(), segments: found.segments }
    const earlier = before
    const empty = isEmpty(found)
    if (terminal) process.stdout.write(clearScreen)
    // A log says once that nothing is there, not every second.
    const news = terminal || !empty || earlier === null || earlier.segments.length > 0
    if (!terminal && !empty) print(new Date().toISOString())
    const rateNow = (segment: SegmentInfo): string => rate(segment, earlier, now.at)
    if (news) show(found, { rate: rateNow, ranksOf }, nothing(directory, names))
    before = now
    await sleep(watchMillis)
  }
}

type Found = ReturnType<typeof readSegments>

interface Reading {
  readonly at: number
  readonly segments: readonly SegmentInfo[]
}

function isEmpty({ segments, unreadable }: Found): boolean {
  return segments.length === 0 && unreadable.length === 0
}

function nothing(directory: string, names: readonly string[]): string {
  return `no segments matching ${names.join(', ')} in ${directory}`
}

/** What is said of a segment beside its counters. */
interface Beside {
  rate(segment: SegmentInfo): string
  readonly ranksOf: RanksOf
}

function show(found: Found, beside: Beside, none: string): void {
  if (isEmpty(found)) {
    tell(none)
    return
  }
  const damaged = found.unreadable.map(
    ({ path, error }) => `${path}: ${error.code} ${error.actual}`,
  )
  print([asTable(found.segments, beside), ...damaged].join('\n'))
}

function exporterText(segment: SegmentInfo): string {
  const state = exporterState(segment)
  if (state === 'none') return 'none'
  return state === 'dead' ? `${segment.consumerPid} dead` : String(segment.consumerPid)
}

function rate(segment: SegmentInfo, before: Reading | null, at: number): string {
  const earlier = before?.segments.find((other) => other.boot === segment.boot)
  if (before === null || earlier === undefined) return '–'
  const bytes = segment.committedBytes - earlier.committedBytes
  return `${bytesText(Math.round((bytes / (at - before.at)) * 1000))}/s`
}

function asTable(segments: readonly SegmentInfo[], { rate: rateOf, ranksOf }: Beside): string {
  const parallel = segments.some((segment) => ranksOf(segment) !== null)
  return table(
    [
      { title: 'SEGMENT' },
      ...(parallel ? [{ title: 'RANKS' }] : []),
      { title: 'PRODUCER' },
      { title: 'EXPORTER' },
      { title: 'RECORDS', right: true },
      { title: 'WAITING', right: true },
      { title: 'PAYLOAD USED', right: true },
      { title: 'RATE', right: true },
      { title: 'LOST' },
    ],
    segments.map((segment) => [
      segment.segment,
      ...(parallel ? [placeText(ranksOf(segment))] : []),
      `${segment.producerPid} ${producerState(segment)}`,
      exporterText(segment),
      String(segment.committedRecords),
      String(segment.metaUsed),
      `${bytesText(segment.payloadUsed)} of ${bytesText(segment.payloadBytes)}`,
      rateOf(segment),
      segment.losses.map((loss) => `${loss.records} ${loss.reason}`).join(', ') || 'none',
    ]),
    styles().bold,
  )
}
