/**
 * Writes down requests whose trace context came after their rows were stored: a row of its own for
 * each, so that the catalogue, and one that is made again, finds the tensors by the caller's trace.
 *
 * It has files of its own, because a request's segment may be gone by then. What cannot be written
 * is tried again; beyond a bound further ones are not taken, and that is logged.
 */
import type { DrainEvent, ProducerInfo, RequestSummary } from '../../collector/index.ts'
import { createTensorSink } from '../tensors/tensor-sink.ts'
import { pipelineLimits } from './limits.ts'
import type { WorkerOptions } from './messages.ts'

export interface MovedRequests {
  add(summary: RequestSummary): void
  /** Writes when that is due. */
  turn(): void
  /** Writes what is left. */
  close(): void
}

type Options = Pick<WorkerOptions, 'location' | 'fsync' | 'host' | 'flushMillis'>

export function createMovedRequests(
  options: Options,
  onEvent: (event: DrainEvent) => void,
): MovedRequests {
  const { host, flushMillis } = options
  const sink = createTensorSink(options)
  // The name of the files; their rows name the producers of the requests.
  const writer: ProducerInfo = { segment: 'contexts', boot: String(process.pid), host, pid: 0 }
  let files: readonly string[] = []
  let dueMillis = Number.POSITIVE_INFINITY
  let failing = false

  function write(): void {
    dueMillis = Number.POSITIVE_INFINITY
    const prepared = sink.prepare(writer)
    if (prepared.status === 'success') files = [...files, ...prepared.value]
    const published = prepared.status === 'success' ? sink.publish(files) : prepared
    if (published.status === 'success') {
      files = []
      failing = false
      return
    }
    dueMillis = performance.now() + pipelineLimits.movedRetryMillis
    if (failing) return
    failing = true
    onEvent({
      level: 'error',
      message: "could not write which of the callers' traces requests belong to; tried again",
      facts: { error: published.error.message },
    })
  }

  return {
    add(summary) {
      if (sink.pending().summaries >= pipelineLimits.movedRequestsMax) {
        onEvent({
          level: 'warn',
          message: "a request is not found by its caller's trace: the store refuses writes",
          facts: { request_id: summary.request.requestId, trace_id: summary.request.traceId },
        })
        return
      }
      sink.moved(summary)
      dueMillis = Math.min(dueMillis, performance.now() + flushMillis)
    },
    turn() {
      if (performance.now() >= dueMillis) write()
    },
    close() {
      write()
      sink.close()
    },
  }
}
