/**
 * The worker thread's program: drains all segments at its own pace, so that neither HTTP nor
 * telemetry ever makes the rings wait. Talks to the main thread by the messages of messages.ts.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { pipelineLimits } from './limits.ts'
import type { WorkerCommand, WorkerOptions, WorkerReport } from './messages.ts'
import { createSegmentSet } from './segment-set.ts'

const port = parentPort
if (port === null) throw new Error('drain-worker.ts runs in a worker thread')

const options = workerData as WorkerOptions
const report = (message: WorkerReport): void => port.postMessage(message)
const segments = createSegmentSet(options, {
  onRequestEnd: (summary) => report({ type: 'request_end', summary }),
  onEvent: (event) => report({ type: 'event', event }),
})

let stopping: { readonly flushMillis: number } | null = null

port.on('message', (command: WorkerCommand) => {
  switch (command.type) {
    case 'stop':
      stopping = { flushMillis: command.flushMillis }
      break
    case 'baselines':
      segments.setBaselines(command.book)
      break
    case 'contexts':
      segments.addContexts(command.batch)
      break
    case 'policy':
      segments.setPolicy(command.policy)
      break
    case 'snapshot':
      report({ type: 'snapshot', id: command.id, snapshot: segments.snapshot() })
      break
  }
})

async function run(): Promise<void> {
  // What an earlier exporter had prepared is in the catalogue once this is ready.
  segments.discover()
  let discoverAt = performance.now() + pipelineLimits.discoverMillis
  report({ type: 'ready' })
  while (stopping === null) {
    const now = performance.now()
    if (now >= discoverAt) {
      segments.discover()
      discoverAt = now + pipelineLimits.discoverMillis
    }
    const taken = segments.turn()
    // A busy ring is drained again at once, but messages are still heard between two turns.
    if (taken > 0) await nextTurn()
    else await sleep(options.intervalMillis)
  }
  segments.discover()
  const { unflushed, last } = segments.stop(performance.now() + stopping.flushMillis)
  report({ type: 'snapshot', id: 0, snapshot: last })
  report({ type: 'stopped', unflushed })
  port?.close()
}

await run()
