/**
 * Full rings → statistics, CRC and Parquet files in a directory, as the exporter does it in its one
 * drain thread, against a plain write of the same payload bytes; in alternating pairs of one run.
 * Prints `{"results": […]}`.
 *
 *   node bench/ring-to-store.ts [--directory DIR] [--pairs N]
 *
 * The producer fills the ring before the clock starts: what is timed is the exporter alone.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { noBaselines } from '../collector/index.ts'
import { createSegmentSet } from '../exporter/pipeline/segment-set.ts'
import { locateStore } from '../exporter/store/location.ts'
import { openProducer } from '../test/helpers/producer.ts'

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

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

function run(scale: Scale, directory: string, pairs: number) {
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

  const plainPath = join(storePath, 'plain')
  const block = new Uint8Array(MIB).fill(1)
  function plain(bytes: number): void {
    const fd = openSync(plainPath, 'w')
    for (let left = bytes; left > 0; left -= block.byteLength) {
      writeSync(fd, block, 0, Math.min(left, block.byteLength))
    }
    closeSync(fd)
  }

  function timed(work: () => void): number {
    const start = performance.now()
    work()
    return (performance.now() - start) / 1000
  }

  const ours: number[] = []
  const theirs: number[] = []
  for (let pair = -1; pair < pairs; pair++) {
    const bytes = fill()
    const first = pair % 2 === 0
    const before = first ? timed(drain) : 0
    const peer = timed(() => plain(bytes))
    const mine = first ? before : timed(drain)
    rmSync(plainPath)
    rmSync(join(storePath, 'tensors'), { recursive: true })
    // The first round warms code and pages up.
    if (pair < 0) continue
    ours.push(bytes / mine / 1e9)
    theirs.push(bytes / peer / 1e9)
  }
  set.stop(performance.now() + 1000)
  producer.close()
  rmSync(segments, { recursive: true })
  rmSync(storePath, { recursive: true })
  const ratios = ours.map((value, index) => value / (theirs[index] ?? Number.NaN))
  return {
    name: `ring → Parquet, ${scale.label}`,
    unit: 'GB/s',
    ours: median(ours),
    peers: { 'plain write': median(theirs) },
    ratio: {
      vs: 'plain write',
      median: median(ratios),
      min: Math.min(...ratios),
      max: Math.max(...ratios),
      pairs,
    },
  }
}

const { values } = parseArgs({
  options: {
    directory: { type: 'string', default: tmpdir() },
    pairs: { type: 'string', default: '9' },
  },
})
const results = scales.map((scale) => run(scale, values.directory, Number(values.pairs)))
process.stdout.write(`${JSON.stringify({ results })}\n`)
