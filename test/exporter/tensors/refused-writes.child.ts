/**
 * Child process of refused-writes.test.ts: prepares a large and then a small flush in a store and
 * prints both outcomes as JSON. `--unprivileged` gives up the superuser's rights first, because
 * permissions do not bind the superuser.
 */

import type { Outcome } from '../../../collector/records.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, row } from './rows.ts'

const [root = '', mode = ''] = process.argv.slice(2)
if (mode === '--unprivileged' && process.getuid?.() === 0) process.setuid?.(65534)

const sink = createTensorSink({ location: locateStore(root, null), fsync: false })

function report<T>(outcome: Outcome<T>): unknown {
  if (outcome.status === 'success') return { status: outcome.status, value: outcome.value }
  const facts = outcome.error instanceof Ring2Error ? outcome.error.toJSON() : {}
  return { status: outcome.status, message: outcome.error.message, ...facts }
}

const large = new Uint8Array(2 * 1024 * 1024).fill(7)
sink.append(row({ data: large, shape: [1, large.byteLength / 4] }))
const first = report(sink.prepare(producer))
process.stdout.write(JSON.stringify({ first, pending: sink.pending() }))
