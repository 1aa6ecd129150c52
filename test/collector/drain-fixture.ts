/**
 * A producer, a store in memory and drains over both, for tests of what the drain loop promises.
 *
 * The store outlives a drain as a disk does; a `Crash` thrown from the sink ends a drain the way
 * SIGKILL would, as far as shared memory and the store can tell: nothing is flushed or released.
 */
import { onTestFinished } from 'vitest'
import { openDrain } from '../../collector/drain.ts'
import type { DrainOptions, SegmentDrain } from '../../collector/drain-contract.ts'
import type { DrainEvent } from '../../collector/drain-event.ts'
import { createFoldBook, type FoldBook } from '../../collector/folds.ts'
import { constants } from '../../collector/layout.gen.ts'
import { everything, planCapture } from '../../collector/policy.ts'
import type { Outcome, RequestSummary, TensorRow, TensorSink } from '../../collector/records.ts'
import { createSlices } from '../../collector/slices.ts'
import { temporaryFolder } from '../exporter/tensors/temporary-folder.ts'
import { openProducer, type ProducerOptions, type TestProducer } from '../helpers/producer.ts'
import { nonfiniteVerdicts } from '../helpers/verdicts.ts'

export class Crash extends Error {}

export interface StoredRow extends Omit<TensorRow, 'data'> {
  readonly data: Buffer
}

interface StoredFile {
  readonly rows: readonly StoredRow[]
  readonly summaries: readonly RequestSummary[]
}

export type CrashPoint =
  | 'before prepare'
  | 'after prepare'
  | 'before publish'
  | 'in publish'
  | 'after publish'

export interface MemoryStore {
  readonly prepared: Map<string, StoredFile>
  readonly published: Map<string, StoredFile>
  /** Where the next flush crashes. */
  crashAt: CrashPoint | null
  /** What fails, as a store that is full would. */
  failing: 'prepare' | 'publish' | null
  rows(): StoredRow[]
  summaries(): RequestSummary[]
  sink(): TensorSink
}

const success = <T>(value: T): Outcome<T> => ({ status: 'success', value })
const refused = (): Outcome<never> => ({
  status: 'retryable',
  error: new Error('the disk is full'),
})

export function createMemoryStore(): MemoryStore {
  let files = 0
  const store: MemoryStore = {
    prepared: new Map(),
    published: new Map(),
    crashAt: null,
    failing: null,
    rows: () => [...store.published.values()].flatMap((file) => file.rows),
    summaries: () => [...store.published.values()].flatMap((file) => file.summaries),
    sink: () => createSink(store, () => `file-${files++}`),
  }
  return store
}

function createSink(store: MemoryStore, nextName: () => string): TensorSink {
  let rows: TensorRow[] = []
  let summaries: RequestSummary[] = []
  const crash = (point: CrashPoint): void => {
    if (store.crashAt === point) throw new Crash(point)
  }
  return {
    append: (row) => void rows.push(row),
    finish: (summary) => void summaries.push(summary),
    pending: () => ({
      rows: rows.length,
      bytes: rows.reduce((sum, row) => sum + row.data.byteLength, 0),
      summaries: summaries.length,
    }),
    prepare() {
      crash('before prepare')
      if (store.failing === 'prepare') return refused()
      const names: string[] = []
      const keep = (file: StoredFile): void => {
        const name = nextName()
        store.prepared.set(name, file)
        names.push(name)
      }
      // Copied only now, as a file is written only now: a byte overwritten earlier would show.
      const copied = rows.map((row) => ({ ...row, data: Buffer.from(row.data) }))
      if (copied.length > 0) keep({ rows: copied, summaries: [] })
      if (summaries.length > 0) keep({ rows: [], summaries })
      rows = []
      summaries = []
      crash('after prepare')
      return success(names)
    },
    publish(names) {
      crash('before publish')
      if (store.failing === 'publish') return refused()
      for (const name of names) {
        const file = store.prepared.get(name)
        if (file !== undefined) store.published.set(name, file)
        store.prepared.delete(name)
        crash('in publish')
      }
      crash('after publish')
      return success(undefined)
    },
    discardExcept(_producer, names) {
      for (const name of store.prepared.keys())
        if (!names.includes(name)) store.prepared.delete(name)
      return success(undefined)
    },
  }
}

export interface DrainFixture {
  readonly producer: TestProducer
  readonly store: MemoryStore
  readonly stateDirectory: string
  readonly directory: string
  readonly folds: FoldBook
  readonly ended: RequestSummary[]
  readonly events: DrainEvent[]
  open(change?: Partial<DrainOptions>): SegmentDrain
}

export function createDrainFixture(options: Partial<ProducerOptions> = {}): DrainFixture {
  const directory = temporaryFolder()
  const stateDirectory = temporaryFolder()
  const producer = openProducer({ directory, name: 'test', ...options })
  onTestFinished(() => producer.close())
  const store = createMemoryStore()
  const folds = createFoldBook()
  onTestFinished(() => folds.destroy())
  const slices = createSlices(4096)
  const ended: RequestSummary[] = []
  const events: DrainEvent[] = []
  return {
    producer,
    store,
    stateDirectory,
    directory,
    folds,
    ended,
    events,
    open(change = {}) {
      const drain = openDrain({
        path: producer.path,
        host: 'host-1',
        plan: planCapture(everything),
        sink: store.sink(),
        verdicts: nonfiniteVerdicts(),
        folds,
        groups: constants.groupsAll,
        slices,
        batchBytes: 1 << 20,
        stateDirectory,
        fsync: false,
        // Tests flush by hand unless they say otherwise.
        flushMillis: 3_600_000,
        flushBytes: 1 << 30,
        requestsMax: 100,
        requestIdleMicros: 3_600_000_000,
        onEnd: (summary) => void ended.push(summary),
        onEvent: (event) => void events.push(event),
        ...change,
      })
      onTestFinished(() => drain.close())
      return drain
    },
  }
}

/** Drains until nothing comes any more. */
export function drainAll(drain: SegmentDrain): void {
  while (drain.turn().slices > 0) {
    // A turn takes one batch.
  }
}

/** Where a row belongs, as text: equal for two rows only when one was stored twice. */
export function placeOf(row: StoredRow): string {
  const { request, hook, layer, step, tokenStart, tokenEnd } = row
  return `${request.requestId} ${hook}.${layer} step ${step} [${tokenStart},${tokenEnd})`
}
