/**
 * Full rings → statistics, CRC and Parquet files in a directory, as the exporter does it in its one
 * drain thread, against a plain write of the same payload bytes; in alternating pairs of one run.
 * Prints `{"results": […]}`.
 *
 *   node bench/ring-to-store.ts [--directory DIR] [--pairs N]
 *
 * The producer fills the ring before the clock starts: what is timed is the exporter alone.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { noBaselines } from '../collector/index.ts'
import { createSegmentSet } from '../exporter/pipeline/segment-set.ts'
import { locateStore } from '../exporter/store/location.ts'
import { openProducer } from '../test/helpers/producer.ts'
import { plainWrite, seconds, warmPageCache } from './page-cache.ts'
import { comparePairs, type Result } from './pairs.ts'

const MIB = 1024 * 1024
const ringBytes = 256 * MIB
/** Half of the ring, so that no flush is forced by occupancy before all is drained. */
const roundBytes = 112 * MIB

interface Scale {
  readonly label: string
  readonly tokens: number
  readonly hidden: number
}

const scales: readonly Scale[] = [
  { label: '2.3 KiB tensors', tokens: 1, hidden: 576 },
  { label: '64 KiB tensors', tokens: 4, hidden: 4096 },
  { label: '1 MiB tensors', tokens: 64, hidden: 4096 },
]

async function run(scale: Scale, directory: string, pairs: number): Promise<Result> {
  const segments = mkdtempSync('/dev/shm/ring2-bench-')
  const storePath = mkdtempSync(join(directory, 'ring2-bench-'))
  const producer = openProducer({
    directory: segments,
    name: 'bench',
    payloadBytes: ringBytes,
    metaSlots: 2 ** 18,
  })
  const set = createSegmentSet(
    {
      segmentsDirectory: segments,
      segmentNames: ['*'],
      stats: ['all'],
      tensors: ['all'],
      statistics: [],
      verdictRules: ['all'],
      baselines: noBaselines,
      location: locateStore(storePath, null),
      fsync: false,
      host: 'bench',
      // Only the explicit conditions flush: bytes, and the end of what was written.
      flushMillis: 1,
      flushBytes: 64 * MIB,
      intervalMillis: 0,
      batchSlices: 4096,
      batchBytes: 64 * MIB,
      requestsMax: 16,
      requestIdleMicros: 1e12,
      contextWaitMillis: 0,
    },
    { onRequestEnd: () => undefined, onEvent: () => undefined },
  )
  set.discover()
  const data = new Uint8Array(
    Float32Array.from({ length: scale.tokens * scale.hidden }, (_, index) => Math.sin(index))
      .buffer,
  )
  let step = 0
  let tokens = 0
  producer.model({ hooks: {} })
  producer.request({ key: 1, request_id: 'bench' })

  function fill(): number {
    let bytes = 0
    while (bytes < roundBytes) {
      producer.step({
        step,
        columns: scale.tokens,
        rows: [{ key: 1, start: tokens, end: tokens + scale.tokens }],
      })
      for (let layer = 0; layer < 32 && bytes < roundBytes; layer++) {
        const dims = [1, scale.tokens, scale.hidden]
        if (producer.tensor({ hook: 'resid_pre', layer, step, dims }, data) === 'full') {
          throw new Error('the ring is full before the round is')
        }
        bytes += data.byteLength
      }
      step += 1
      tokens += scale.tokens
    }
    return bytes
  }

  function drain(): void {
    const before = set.snapshot().store.rows
    do set.turn()
    while (set.snapshot().segments[0]?.metaUsedRecords !== 0)
    if (set.snapshot().store.rows === before) throw new Error('nothing was stored')
  }

  // As large as a round, so that it comes from memory and not from a cache, like the ring's bytes.
  const source = new Uint8Array(roundBytes).fill(1)
  const plainPath = join(storePath, 'plain')

  function ours(): number {
    const bytes = fill()
    warmPageCache(storePath, 2 * roundBytes)
    const taken = seconds(drain)
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
  const result = await comparePairs({ name, unit: 'GB/s', vs: 'plain write', ours, theirs, pairs })
  set.stop(performance.now() + 1000)
  producer.close()
  rmSync(segments, { recursive: true })
  rmSync(storePath, { recursive: true })
  return result
}

const { values } = parseArgs({
  options: {
    directory: { type: 'string', default: tmpdir() },
    pairs: { type: 'string', default: '9' },
  },
})
const results: Result[] = []
for (const scale of scales) results.push(await run(scale, values.directory, Number(values.pairs)))
process.stdout.write(`${JSON.stringify({ results })}\n`)
