/**
 * Writes rows whose payloads lie in a mapped ring, and prints by how many bytes the memory of this
 * process that is no mapping of a file grew at most.
 *
 *   node write-memory.child.ts STORE SEGMENTS TENSOR_BYTES ROUNDS
 */

import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { openConsumer } from '../../../collector/native.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { openProducer } from '../../helpers/producer.ts'
import { producer, row } from '../tensors/rows.ts'

const ringBytes = 128 * 1024 * 1024

function anonymousBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8')
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024
}

const [store = '', segments = '', bytesText = '', roundsText = ''] = process.argv.slice(2)
const tensorBytes = Number(bytesText)
const inProduction = openProducer({ directory: segments, name: 'memory', payloadBytes: ringBytes })
const consumer = openConsumer(join(segments, 'ring2.memory'), ringBytes)
const sink = createTensorSink({ location: locateStore(store, null), fsync: false })
const rowsOfRound = Math.floor(ringBytes / 2 / tensorBytes)

let step = 0
function writeRound(): void {
  for (let index = 0; index < rowsOfRound; index += 1) {
    const at = index * tensorBytes
    const data = consumer.payload.subarray(at, at + tensorBytes)
    sink.append(row({ step, data, crc32c: 0, shape: [tensorBytes / 4] }))
    step += 1
  }
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  const published = sink.publish(prepared.value)
  if (published.status !== 'success') throw published.error
  rmSync(join(store, 'tensors'), { recursive: true })
}

// The first rounds load code and fill caches of the runtime.
writeRound()
writeRound()
const before = anonymousBytes()
let most = 0
for (let round = 0; round < Number(roundsText); round += 1) {
  writeRound()
  most = Math.max(most, anonymousBytes() - before)
}
sink.close()
consumer.close(false)
inProduction.close()
process.stdout.write(JSON.stringify({ rows: step, grown: most }))
