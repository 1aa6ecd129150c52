/**
 * Child process of full-catalog.test.ts: publishes a file while the catalogue cannot grow, and again
 * after the limit of this process is gone. Prints both outcomes as JSON.
 */

import { spawnSync } from 'node:child_process'
import type { Outcome } from '../../../collector/records.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, row } from '../tensors/rows.ts'

const [root = ''] = process.argv.slice(2)
const sink = createTensorSink({ location: locateStore(root, null), fsync: true })

function report<T>(outcome: Outcome<T>): unknown {
  if (outcome.status === 'success') return { status: outcome.status }
  const facts = outcome.error instanceof Ring2Error ? outcome.error.toJSON() : {}
  return { status: outcome.status, ...facts }
}

sink.append(row())
const prepared = sink.prepare(producer)
const names = prepared.status === 'success' ? prepared.value : []
const first = report(sink.publish(names))
const raised = spawnSync('prlimit', ['--pid', String(process.pid), '--fsize=unlimited']).status
const second = report(sink.publish(names))
sink.close()
process.stdout.write(JSON.stringify({ prepared: names.length, first, raised, second }))
