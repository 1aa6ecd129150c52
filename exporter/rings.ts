/** The live segments as one document: what `rings --json` prints and GET /v1/rings answers. */
import { existsSync } from 'node:fs'
import { readSegments, type SegmentInfo } from '../collector/index.ts'
import type { RanksOf } from './segment-ranks.ts'

export function ringsDocument(directory: string, patterns: readonly string[], ranksOf: RanksOf) {
  const { segments, unreadable } = readSegments(directory, patterns)
  return { segments: segments.map((info) => segmentDocument(info, ranksOf)), unreadable }
}

function segmentDocument(info: SegmentInfo, ranksOf: RanksOf) {
  return {
    segment: info.segment,
    path: info.path,
    boot: info.boot,
    producer: {
      pid: info.producerPid,
      state: producerState(info),
    },
    /** Whoever drains it, or did when it died; pid 0 and state `none` when nobody does. */
    exporter: {
      pid: info.consumerPid,
      state: exporterState(info),
    },
    /** Which process of a parallel model it is; null for a model in one process, or while not known. */
    parallel: ranksOf(info),
    created_at: new Date(info.createdAtMicros / 1000).toISOString(),
    committed: { records: info.committedRecords, bytes: info.committedBytes },
    meta: { used: info.metaUsed, limit: info.metaSlots },
    payload: { used_bytes: info.payloadUsed, limit_bytes: info.payloadBytes },
    losses: info.losses,
  }
}

export function producerState(info: SegmentInfo): 'alive' | 'closed' | 'dead' {
  if (info.producerClosed) return 'closed'
  return info.producerAlive ? 'alive' : 'dead'
}

/** An exporter that ends in order leaves no pid behind; one that was killed does. */
export function exporterState({ consumerPid }: SegmentInfo): 'alive' | 'dead' | 'none' {
  if (consumerPid === 0) return 'none'
  return existsSync(`/proc/${consumerPid}`) ? 'alive' : 'dead'
}
