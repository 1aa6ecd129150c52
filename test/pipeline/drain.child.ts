/**
 * Child process of store-kills.test.ts: what a drain worker does, in one thread, until the segment
 * has ended and nothing is left.
 *
 *   node drain.child.ts SEGMENTS STORE_URL STATE FSYNC
 */

import { createSegmentSet } from '../../exporter/pipeline/segment-set.ts'
import { locateStore } from '../../exporter/store/location.ts'

const [segmentsDirectory = '', url = '', state = '', fsync = ''] = process.argv.slice(2)
const segments = createSegmentSet(
  {
    segmentsDirectory,
    segmentNames: ['*'],
    stats: ['all'],
    tensors: ['all'],
    statistics: [],
    verdictRules: ['nonfinite'],
    baselines: { baselines: [], fault: null },
    location: locateStore(url, state),
    fsync: fsync === 'fsync',
    host: 'test-host',
    // Every turn is a flush.
    flushMillis: 0,
    flushBytes: 1,
    intervalMillis: 0,
    batchSlices: 1024,
    batchBytes: 200,
    requestsMax: 100,
    requestIdleMicros: 60e6,
    contextWaitMillis: 0,
  },
  {
    onRequestEnd: () => undefined,
    onEvent(event) {
      if (event.level === 'error') throw new Error(JSON.stringify(event))
    },
  },
)
segments.discover()
let idle = 0
while (idle < 3) idle = segments.turn() > 0 ? 0 : idle + 1
const { unflushed } = segments.stop(performance.now() + 10_000)
if (unflushed.length > 0) throw new Error(`not stored: ${unflushed.join(', ')}`)
