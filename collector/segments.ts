/** Finds segments and reads their counters, without taking them. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Ring2Error } from './errors.ts'
import { constants, lossReasons, segmentInfo } from './layout.gen.ts'
import { peekSegment } from './native.ts'
import { type Words, words } from './words.ts'

export interface LossCount {
  readonly reason: string
  readonly records: number
  readonly bytes: number
}

/** Counters of one segment at one moment. */
export interface SegmentInfo {
  /** File name without the `ring2.` prefix; a leftover that was moved aside ends in `~<boot>`. */
  readonly segment: string
  readonly path: string
  /** Hexadecimal. */
  readonly boot: string
  readonly producerPid: number
  readonly producerAlive: boolean
  readonly producerClosed: boolean
  /** 0 when no exporter holds it. */
  readonly consumerPid: number
  readonly createdAtMicros: number
  readonly committedRecords: number
  readonly committedBytes: number
  readonly metaSlots: number
  readonly metaUsed: number
  readonly payloadBytes: number
  readonly payloadUsed: number
  readonly losses: readonly LossCount[]
}

const prefix = 'ring2.'

/**
 * Paths of the segments in a directory, in the order of their names.
 *
 * @param patterns names without `ring2.`; `*` and `?` match as in a shell.
 */
export function findSegments(directory: string, patterns: readonly string[] = ['*']): string[] {
  const wanted = patterns.map(patternExpression)
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith(prefix))
    .map((entry) => entry.name)
    .filter((name) => {
      const producer = producerName(segmentName(name))
      return wanted.some((expression) => expression.test(producer))
    })
    .sort()
    .map((name) => join(directory, name))
}

function patternExpression(pattern: string): RegExp {
  const escaped = pattern.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`)
}

/** The name a producer gave its segment: `chat` also for `chat~00ff…`, which was moved aside. */
export function producerName(segment: string): string {
  const tilde = segment.indexOf('~')
  return tilde < 0 ? segment : segment.slice(0, tilde)
}

/** `…/ring2.chat` → `chat`. */
function segmentName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1 + prefix.length)
}

export function readSegmentInfo(path: string): SegmentInfo {
  const bytes = new Uint8Array(segmentInfo.bytes)
  peekSegment(path, bytes)
  return decodeSegmentInfo(path, words(bytes))
}

export interface UnreadableSegment {
  readonly path: string
  readonly error: Record<string, unknown>
}

/** All segments of a directory: those that can be read, and those that cannot, with the error. */
export function readSegments(
  directory: string,
  patterns: readonly string[],
): { segments: SegmentInfo[]; unreadable: UnreadableSegment[] } {
  const segments: SegmentInfo[] = []
  const unreadable: UnreadableSegment[] = []
  for (const path of findSegments(directory, patterns)) {
    try {
      segments.push(readSegmentInfo(path))
    } catch (error) {
      if (!(error instanceof Ring2Error)) throw error
      unreadable.push({ path, error: error.toJSON() })
    }
  }
  return { segments, unreadable }
}

/** Decodes a ring2_segment_info. */
export function decodeSegmentInfo(path: string, info: Words): SegmentInfo {
  const boot = Buffer.from(info.bytes.slice(segmentInfo.boot, segmentInfo.boot + 8))
  return {
    segment: segmentName(path),
    path,
    boot: boot.reverse().toString('hex'),
    producerPid: info.u32(segmentInfo.producerPid),
    producerAlive: info.u32(segmentInfo.producerAlive) === 1,
    producerClosed: info.u32(segmentInfo.producerClosed) === 1,
    consumerPid: info.u32(segmentInfo.consumerPid),
    createdAtMicros: info.micros(segmentInfo.anchorRealtimeNs),
    committedRecords: info.u64(segmentInfo.committedRecords),
    committedBytes: info.u64(segmentInfo.committedBytes),
    metaSlots: info.u64(segmentInfo.metaSlots),
    metaUsed: info.u64(segmentInfo.metaHead) - info.u64(segmentInfo.metaTail),
    payloadBytes: info.u64(segmentInfo.payloadBytes),
    // An empty ring may show the padding of its last lap: nothing is used then.
    payloadUsed:
      info.u64(segmentInfo.metaHead) === info.u64(segmentInfo.metaTail)
        ? 0
        : info.u64(segmentInfo.payloadHead) - info.u64(segmentInfo.payloadTail),
    losses: decodeLosses(info, segmentInfo.losses),
  }
}

/** Decodes an array of ring2_loss_count; reasons that never occurred are left out. */
export function decodeLosses(source: Words, offset: number): LossCount[] {
  const counts: LossCount[] = []
  for (let reason = 0; reason < constants.lossReasonsMax; reason++) {
    const records = source.u64(offset + reason * 16)
    if (records === 0) continue
    counts.push({
      reason: lossReasons.get(reason) ?? `reason_${reason}`,
      records,
      bytes: source.u64(offset + reason * 16 + 8),
    })
  }
  return counts
}
