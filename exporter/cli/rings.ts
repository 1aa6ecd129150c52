/** `ring2-exporter rings`: the live segments of this machine, read without taking them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { readSegments, type SegmentInfo } from '../../collector/index.ts'
import { producerState, ringsDocument } from '../rings.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson } from './outcome.ts'
import { bytesText, styles, table } from './table.ts'

interface RingsOptions extends ConfigOptions {
  readonly watch?: boolean
  readonly json?: boolean
}

const watchMillis = 1000

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
  const { directory, names } = configFrom(options).config.segments
  if (options.json === true) {
    printJson(ringsDocument(directory, names))
    return exitCodes.done
  }
  let before: { at: number; segments: SegmentInfo[] } | null = null
  do {
    const found = readSegments(directory, names)
    const at = performance.now()
    const previous = before
    print(
      asTable(found.segments, (segment) => rate(segment, previous, at)) +
        found.unreadable
          .map(({ path, error }) => `\n${path}: ${error.code} ${error.actual}`)
          .join(''),
    )
    before = { at, segments: found.segments }
    if (options.watch === true) await sleep(watchMillis)
  } while (options.watch === true)
  return exitCodes.done
}

function rate(
  segment: SegmentInfo,
  before: { at: number; segments: SegmentInfo[] } | null,
  at: number,
): string {
  const earlier = before?.segments.find((other) => other.boot === segment.boot)
  if (before === null || earlier === undefined) return '–'
  const bytes = segment.committedBytes - earlier.committedBytes
  return `${bytesText(Math.round((bytes / (at - before.at)) * 1000))}/s`
}

function asTable(
  segments: readonly SegmentInfo[],
  rateOf: (segment: SegmentInfo) => string,
): string {
  return table(
    [
      { title: 'SEGMENT' },
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
      `${segment.producerPid} ${producerState(segment)}`,
      segment.consumerPid === 0 ? 'none' : String(segment.consumerPid),
      String(segment.committedRecords),
      String(segment.metaUsed),
      `${bytesText(segment.payloadUsed)} of ${bytesText(segment.payloadBytes)}`,
      rateOf(segment),
      segment.losses.map((loss) => `${loss.records} ${loss.reason}`).join(', ') || 'none',
    ]),
    styles().bold,
  )
}
