/**
 * A producer in a process of its own, to be killed: writes a request with one finished step, claims
 * the next tensor, fills half of it, says "claimed" and waits for the end.
 *
 *   node producer.child.ts DIRECTORY NAME
 */

import { float32, openProducer } from './producer.ts'
import { beginRequest, writeStep } from './requests.ts'

const [directory = '', name = ''] = process.argv.slice(2)
const producer = openProducer({ directory, name })
producer.model()
beginRequest(producer, 1)
writeStep(producer, 1, 0, 3)
producer.step({ step: 1001, columns: 1, rows: [{ key: 1, start: 3, end: 4, phase: 'decode' }] })
const claim = producer.claim({ hook: 'resid_pre', layer: 0, step: 1001, dims: [1, 1, 4] })
claim.payload.set(float32([1, 2]))
// Committed behind the open claim: it must not be lost with it.
producer.tensor({ hook: 'resid_pre', layer: 1, step: 1001, dims: [1, 1, 4] }, float32([9, 9, 9, 9]))
process.stdout.write('claimed\n')
setInterval(() => producer.heartbeat(), 100)
