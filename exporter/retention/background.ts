/**
 * Retention of a running exporter: a pass every few minutes on the main thread, and deletions that a
 * crash has interrupted are finished at the start. The drain worker has a thread of its own; here as
 * little as one file is removed at a time.
 */

import { join } from 'node:path'
import { takeLock } from '../catalog/process-lock.ts'
import { asRing2Error } from '../errors.ts'
import type { Logger } from '../logging.ts'
import type { RemovedPoints } from '../telemetry/metric-points.ts'
import type { DeletionContext } from './context.ts'
import { resumeDeletions } from './delete-trace.ts'
import { deletionFolder } from './journal.ts'
import { removeLeftovers } from './leftovers.ts'
import { retentionLimits } from './limits.ts'
import type { PlannedRemoval } from './plan.ts'
import { retentionPass } from './retention.ts'
import type { RetentionRules } from './rules.ts'

export interface Retention {
  /** Ends after the file in hand. */
  stop(): Promise<void>
}

export interface RetentionOptions {
  readonly context: DeletionContext
  /** Null: nothing is removed; interrupted deletions are finished all the same. */
  readonly rules: RetentionRules | null
  readonly logger: Logger
  readonly onRemoved: (removal: PlannedRemoval) => void
  readonly now?: () => number
}

export function startRetention(options: RetentionOptions): Retention {
  const { context, rules, logger, onRemoved } = options
  const now = options.now ?? Date.now
  let timer: NodeJS.Timeout | null = null
  let stopped = false
  let running: Promise<void> = Promise.resolve()
  let swept = false
  let resumeAt = 0

  function removed(removal: PlannedRemoval): void {
    onRemoved(removal)
    const { key, bytes, reason } = removal
    logger.info({ key, bytes, reason }, 'removed a file by retention')
  }

  /** The pause until the next pass, in milliseconds. */
  async function pass(active: RetentionRules): Promise<number> {
    const unlock = takeLock(join(deletionFolder(context.location), 'lock'), 0)
    // A deletion writes files at this moment: they are looked at when it is done.
    if (unlock === null) return retentionLimits.busyMillis
    try {
      const facts = { ...context, rules: active, onRemoved: removed }
      const report = await retentionPass(facts, now(), retentionLimits.filesAtOnce)
      if (report.requests > 0) {
        logger.info({ requests: report.requests }, 'requests are listed no more: retention')
      }
      return report.left > 0 ? retentionLimits.busyMillis : retentionLimits.passMillis
    } finally {
      unlock()
    }
  }

  /** Once after the start: copies end in the middle only with their process. */
  async function sweep(): Promise<void> {
    if (swept) return
    const files = await removeLeftovers(context.location, now())
    if (files > 0) logger.info({ files }, 'removed copies that a killed process had left')
    swept = true
  }

  /** A deletion that cannot be finished is told of now and again, and holds up nothing. */
  async function resume(): Promise<void> {
    if (now() < resumeAt) return
    const { reports, stuck } = await resumeDeletions(context)
    for (const report of reports) {
      logger.info({ ...report }, 'finished a deletion that was interrupted')
    }
    for (const { traces, error } of stuck) {
      logger.error({ traces, error: error.toJSON() }, 'a deletion is not finished; tried again')
    }
    resumeAt = now() + retentionLimits.passMillis
  }

  async function trying(act: () => Promise<void>): Promise<void> {
    try {
      await act()
    } catch (error) {
      logger.error({ error: asRing2Error(error).toJSON() }, 'could not remove; tried again')
    }
  }

  async function turn(): Promise<void> {
    let pause: number = retentionLimits.passMillis
    await trying(sweep)
    await trying(resume)
    await trying(async () => {
      if (rules !== null) pause = await pass(rules)
    })
    if (!stopped) schedule(pause)
  }

  function schedule(millis: number): void {
    timer = setTimeout(() => {
      running = turn()
    }, millis)
    timer.unref()
  }

  schedule(retentionLimits.firstMillis)
  return {
    async stop() {
      stopped = true
      if (timer !== null) clearTimeout(timer)
      await running
    },
  }
}

/** What retention has removed since the start, for the metrics. */
export function createRemovedCounts() {
  const counts = { age: { files: 0, bytes: 0 }, size: { files: 0, bytes: 0 } }
  return {
    add({ reason, bytes }: PlannedRemoval): void {
      counts[reason].files += 1
      counts[reason].bytes += bytes
    },
    counts: (): RemovedPoints => structuredClone(counts),
  }
}
