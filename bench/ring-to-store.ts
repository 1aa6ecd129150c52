/**
 * Full rings → statistics, CRC and Parquet files in a directory, as the exporter does it in its one
 * drain thread, against a plain write of the same number of payload bytes.
 *
 * The producer fills the ring before the clock starts: what is timed is the exporter alone, to the
 * moment when everything is published and its space in the ring released.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  createFoldBook,
  createSlices,
  createVerdicts,
  noBaselines,
  openDrain,
  planCapture,
  type SegmentDrain,
} from '../collector/index.ts'
import { locateStore } from '../exporter/store/location.ts'
import { createTensorSink } from '../exporter/tensors/tensor-sink.ts'
import { openProducer } from '../test/helpers/producer.ts'
import { plainWrite, seconds, warmPageCache } from './page-cache.ts'
import { comparePairs, type Result, round } from './pairs.ts'

const KIB = 1024
const MIB = 1024 * KIB
const ringBytes = 256 * MIB
/** Half of the ring, so that a round fits whatever was released before. */
const roundBytes = 112 * MIB
const layers = 32

export interface Scale {
  readonly label: string
  readonly tokens: number
  readonly hidden: number
}

export const scales: readonly Scale[] = [
  { label: '2.3 KiB tensors', tokens: 1, hidden: 576 },
  { label: '64 KiB tensors', tokens: 4, hidden: 4096 },
  { label: '1 MiB tensors', tokens: 64, hidden: 4096 },
  { label: '16 MiB tensors', tokens: 1024, hidden: 4096 },
]

/** The rate, and how much the memory of the process grew, without the ring. */
export async function measureRing(
  scale: Scale,
  directory: string,
  pairs: number,
): Promise<Result[]> {
  const segments = mkdtempSync('/dev/shm/ring2-bench-')
  const storePath = mkdtempSync(join(directory, 'ring2-bench-'))
  const producer = openProducer({
    directory: segments,
    name: 'bench',
    payloadBytes: ringBytes,
    metaSlots: 2 ** 18,
  })
  const fill = filler(producer, scale)
  const drain = openBenchDrain(join(segments, 'ring2.bench'), storePath)
  // As large as a round, so that it comes from memory and not from a cache, like the ring's bytes.
  const source = new Uint8Array(roundBytes).fill(1)
  const plainPath = join(storePath, 'plain')
  let before = Number.NaN
  let most = 0

  function ours(): number {
    const bytes = fill()
    warmPageCache(storePath, 2 * roundBytes)
    if (Number.isNaN(before)) before = anonymousBytes()
    const taken = seconds(() => drainAll(drain))
    most = Math.max(most, anonymousBytes() - before)
    rmSync(join(storePath, 'tensors'), { recursive: true })
    return bytes / taken / 1e9
  }

  function theirs(): number {
    warmPageCache(storePath, 2 * roundBytes)
    const taken = seconds(() => plainWrite(plainPath, source, roundBytes))
    rmSync(plainPath)
    return roundBytes / taken / 1e9
  }

  const name = `ring → Parquet, ${scale.label}`
  const rate = await comparePairs({ name, unit: 'GB/s', vs: 'plain write', ours, theirs, pairs })
  drain.close()
  producer.close()
  rmSync(segments, { recursive: true })
  rmSync(storePath, { recursive: true })
  const memory = { name: `${name}: growth of memory`, unit: 'MiB', peers: {}, ratio: null }
  return [rate, { ...memory, ours: round(most / MIB) }]
}

/** Puts a round of tensors of one long request into the ring and returns their bytes. */
function filler(
  producer: ReturnType<typeof openProducer>,
  { tokens, hidden }: Scale,
): () => number {
  const data = new Uint8Array(
    Float32Array.from({ length: tokens * hidden }, (_, index) => Math.sin(index)).buffer,
  )
  const dims = [1, tokens, hidden]
  let step = 0
  let start = 0
  producer.model({ hooks: {} })
  producer.request({ key: 1, request_id: 'bench' })
  return () => {
    let bytes = 0
    while (bytes + data.byteLength <= roundBytes) {
      producer.step({ step, columns: tokens, rows: [{ key: 1, start, end: start + tokens }] })
      for (let layer = 0; layer < layers && bytes + data.byteLength <= roundBytes; layer++) {
        if (producer.tensor({ hook: 'resid_pre', layer, step, dims }, data) === 'full') {
          throw new Error('the ring is full before the round is')
        }
        bytes += data.byteLength
      }
      step += 1
      start += tokens
    }
    return bytes
  }
}

function openBenchDrain(path: string, storePath: string): SegmentDrain {
  const location = locateStore(storePath, null)
  const statistics: readonly never[] = []
  return openDrain({
    path,
    host: 'bench',
    plan: planCapture({ stats: ['all'], tensors: ['all'] }),
    sink: createTensorSink({ location, fsync: false }),
    verdicts: createVerdicts({ rules: ['all'], statistics, book: noBaselines }),
    folds: createFoldBook(),
    groups: 0,
    slices: createSlices(4096),
    batchBytes: 64 * MIB,
    stateDirectory: location.spool,
    fsync: false,
    // As users have it by default; the last flush of a round is asked for.
    flushMillis: 2000,
    flushBytes: 64 * MIB,
    requestsMax: 16,
    requestIdleMicros: 1e12,
    onEnd: () => undefined,
    onEvent({ level, message, facts }) {
      if (level !== 'info') throw new Error(`${message}: ${JSON.stringify(facts)}`)
    },
  })
}

function drainAll(drain: SegmentDrain): void {
  while (drain.turn().slices > 0) {
    // Takes batch after batch, and flushes when enough waits.
  }
  const outcome = drain.flush()
  if (outcome.status !== 'success') throw outcome.error
  const { metaUsed } = drain.info()
  if (metaUsed !== 0) throw new Error(`${metaUsed} records are still in the ring`)
}

/** Memory of this process that is no mapping of a file: the ring does not count. */
function anonymousBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8')
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * KIB
}
