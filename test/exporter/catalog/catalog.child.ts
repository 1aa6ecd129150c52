/** Child process of catalog.test.ts: publishes ten files into a store that others use too. */

import { locateStore } from '../../../exporter/store/location.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, request, row } from '../tensors/rows.ts'

const [root = '', index = '0'] = process.argv.slice(2)
const sink = createTensorSink({ location: locateStore(root, null), fsync: false })
const own = { ...producer, boot: `00${index}` }
for (let flush = 0; flush < 10; flush += 1) {
  const traceId = `${index}${flush}`.padStart(32, 'c')
  sink.append(row({ producer: own, request: request({ traceId }) }))
  const prepared = sink.prepare(own)
  if (prepared.status !== 'success') throw prepared.error
  const published = sink.publish(prepared.value)
  if (published.status !== 'success') throw published.error
}
sink.close()
process.stdout.write('ok')
