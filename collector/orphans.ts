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
import type { DrainEvent } from './drain-contract.ts'
import type { Outcome, RequestSummary, TensorSink } from './records.ts'
import { createRegistry } from './requests.ts'
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

/** Settles every checkpoint of a segment that is gone; one that cannot be settled stays. */
export function settleOrphans(options: OrphanOptions): void {
  const { stateDirectory, segmentsDirectory, host } = options
  const { segments } = readSegments(segmentsDirectory, ['*'])
  const boots = new Set(segments.map((segment) => segment.boot))
  for (const checkpoint of orphanedCheckpoints(stateDirectory, host, segmentsDirectory, boots)) {
    const outcome = settle(checkpoint, options)
    options.onEvent({
      level: outcome.status === 'success' ? 'info' : 'error',
      message:
        outcome.status === 'success'
          ? 'finished what was left of a segment that is gone'
          : 'could not finish what was left of a segment that is gone',
      facts: {
        segment: checkpoint.segment,
        boot: checkpoint.boot,
        files: checkpoint.files.length,
        ...(outcome.status === 'success' ? {} : { error: outcome.error.message }),
      },
    })
  }
}

function settle(checkpoint: Checkpoint, options: OrphanOptions): Outcome<void> {
  const { sink } = options
  const { segment, boot, host, pid } = checkpoint
  const producer = { segment, boot, host, pid }
  const discarded = sink.discardExcept(producer, checkpoint.files)
  if (discarded.status !== 'success') return discarded
  const published = sink.publish(checkpoint.files)
  if (published.status !== 'success') return published
  const registry = createRegistry({
    producer,
    unwanted: new Set(),
    verdicts: options.verdicts,
    requestsMax: Number.POSITIVE_INFINITY,
    requestIdleMicros: Number.POSITIVE_INFINITY,
    onEnd(summary) {
      sink.finish(summary)
      options.onEnd(summary)
    },
  })
  const none = registry.store()
  registry.restore(checkpoint.registry)
  registry.giveUp(Date.now() * 1000, true)
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') return prepared
  const { directory, position } = checkpoint
  const facts = { directory, position, files: prepared.value, steps: [], registry: none }
  const recorded = writeCheckpoint(options.stateDirectory, producer, facts, options.fsync)
  if (recorded.status !== 'success') return recorded
  const ended = sink.publish(prepared.value)
  if (ended.status === 'success') removeCheckpoint(options.stateDirectory, producer)
  return ended
}
