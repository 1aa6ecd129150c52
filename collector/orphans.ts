/**
 * Finishes what an earlier exporter had begun for a segment that is gone (its producer's name was
 * used again, or the machine was restarted): the files its last checkpoint names are published, and
 * its open requests end. Nothing of the ring is needed for that.
 *
 * A crash in the middle stores nothing twice: the files that tell of the ended requests are named by
 * the checkpoint, which then has no open requests any more, before they are published.
 */
import {
  type Checkpoint,
  orphanedCheckpoints,
  removeCheckpoint,
  writeCheckpoint,
} from './checkpoint.ts'
import { storedExpectation } from './control-book.ts'
import type { DrainEvent } from './drain-event.ts'
import { createRankJoin, type RankJoin } from './rank-join.ts'
import type { Outcome, ProducerInfo, RequestSummary, TensorSink } from './records.ts'
import { createRegistry, type RequestRegistry } from './requests.ts'
import { readSegments } from './segments.ts'
import type { Verdicts } from './verdicts.ts'

export interface OrphanOptions {
  readonly stateDirectory: string
  readonly segmentsDirectory: string
  readonly host: string
  readonly sink: TensorSink
  readonly verdicts: Verdicts
  readonly fsync: boolean
  onEnd(summary: RequestSummary): void
  onEvent(event: DrainEvent): void
}

/** A segment that is gone, and what it has still to tell of. */
interface Orphan {
  readonly checkpoint: Checkpoint
  readonly producer: ProducerInfo
  readonly registry: RequestRegistry
  readonly summaries: RequestSummary[]
}

/**
 * Settles every checkpoint of a segment that is gone; one that cannot be settled stays. Ranks of a
 * parallel model that are gone together have their requests told of once.
 */
export function settleOrphans(options: OrphanOptions): void {
  const { stateDirectory, segmentsDirectory, host, verdicts, onEvent } = options
  const { segments } = readSegments(segmentsDirectory, ['*'])
  const boots = new Set(segments.map((segment) => segment.boot))
  const ranks = createRankJoin({ verdicts, onEvent })
  const left: Orphan[] = []
  for (const checkpoint of orphanedCheckpoints(stateDirectory, host, segmentsDirectory, boots)) {
    const orphan = open(checkpoint, options, ranks)
    const published = publish(orphan, options)
    if (published.status === 'success') left.push(orphan)
    else report(orphan, published, options)
  }
  for (const { registry, checkpoint } of left) registry.restore(checkpoint.registry)
  for (const { registry } of left) registry.giveUp(Date.now() * 1000, true)
  ranks.release()
  const settled: Orphan[] = []
  for (const orphan of left) {
    const outcome = settle(orphan, options)
    report(orphan, outcome, options)
    if (outcome.status === 'success') settled.push(orphan)
  }
  // Not before all are stored: until then a checkpoint says which parts others still hold are told.
  for (const { producer } of settled) removeCheckpoint(stateDirectory, producer)
}

function report({ checkpoint }: Orphan, outcome: Outcome<void>, options: OrphanOptions): void {
  const done = outcome.status === 'success'
  options.onEvent({
    level: done ? 'info' : 'error',
    message: done
      ? 'finished what was left of a segment that is gone'
      : 'could not finish what was left of a segment that is gone',
    facts: {
      segment: checkpoint.segment,
      boot: checkpoint.boot,
      files: checkpoint.files.length,
      ...(done ? {} : { error: outcome.error.message }),
    },
  })
}

function open(checkpoint: Checkpoint, options: OrphanOptions, ranks: RankJoin): Orphan {
  const { segment, boot, host, pid } = checkpoint
  const producer = { segment, boot, host, pid }
  const summaries: RequestSummary[] = []
  const registry = createRegistry({
    producer,
    expected: storedExpectation(checkpoint.controls),
    verdicts: options.verdicts,
    requestsMax: Number.POSITIVE_INFINITY,
    requestIdleMicros: Number.POSITIVE_INFINITY,
    ranks,
    onEnd: (summary) => void summaries.push(summary),
  })
  return { checkpoint, producer, registry, summaries }
}

function publish({ checkpoint, producer }: Orphan, { sink }: OrphanOptions): Outcome<void> {
  const discarded = sink.discardExcept(producer, checkpoint.files)
  return discarded.status === 'success' ? sink.publish(checkpoint.files) : discarded
}

function settle(orphan: Orphan, options: OrphanOptions): Outcome<void> {
  const { sink } = options
  const { checkpoint, producer, registry, summaries } = orphan
  for (const summary of summaries) {
    sink.finish(summary)
    options.onEnd(summary)
  }
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') return prepared
  const { directory, position } = checkpoint
  const { model, ranks } = registry.store()
  const told = { parts: [], told: ranks?.told ?? [] }
  const facts = {
    ...{ directory, position, files: prepared.value, steps: [] },
    registry: { model, requests: [], ranks: told },
  }
  const recorded = writeCheckpoint(options.stateDirectory, producer, facts, options.fsync)
  return recorded.status === 'success' ? sink.publish(prepared.value) : recorded
}
