import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { identify, unknownModel } from '../../collector/bodies.ts'
import { checkpointPath, writeCheckpoint } from '../../collector/checkpoint.ts'
import { settleOrphans } from '../../collector/orphans.ts'
import type { ProducerInfo, RequestSummary } from '../../collector/records.ts'
import { createRegistry } from '../../collector/requests.ts'
import { temporaryFolder } from '../exporter/tensors/temporary-folder.ts'
import { nonfiniteVerdicts } from '../helpers/verdicts.ts'
import { Crash, createMemoryStore } from './drain-fixture.ts'

const producer: ProducerInfo = { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'h', pid: 7 }

/** What a killed exporter leaves: a prepared file, an open request, a checkpoint that names both. */
function leftover() {
  const state = temporaryFolder()
  const segments = temporaryFolder()
  const store = createMemoryStore()
  store.prepared.set('chat-a', { rows: [], summaries: [] })
  const registry = createRegistry({
    producer,
    expected: { wantsOf: () => () => true },
    verdicts: nonfiniteVerdicts(),
    requestsMax: 10,
    requestIdleMicros: 1e9,
    onEnd: () => undefined,
  })
  const rest = { traceState: null, attributes: {}, startedAtMicros: 5 }
  registry.begin(identify(1, 'request-1', null, rest))
  const facts = {
    directory: segments,
    position: 9,
    files: ['chat-a'],
    steps: [],
    registry: registry.store(),
  }
  expect(writeCheckpoint(state, producer, facts, false).status).toBe('success')
  const ended: RequestSummary[] = []
  const settle = (host: string) =>
    settleOrphans({
      stateDirectory: state,
      segmentsDirectory: segments,
      host,
      sink: store.sink(),
      verdicts: nonfiniteVerdicts(),
      fsync: false,
      onEnd: (summary) => void ended.push(summary),
      onEvent: () => undefined,
    })
  return { store, ended, settle, path: checkpointPath(state, producer) }
}

test('files of a segment that is gone are published and its open requests end', () => {
  const { store, ended, settle, path } = leftover()
  settle('h')
  expect(store.published.has('chat-a')).toBe(true)
  expect(ended.map(({ request, verdict }) => [request.requestId, verdict])).toEqual([
    ['request-1', 'unknown'],
  ])
  expect(store.summaries().map(({ request }) => request.requestId)).toEqual(['request-1'])
  expect(existsSync(path)).toBe(false)
  expect(ended[0]?.model).toEqual(unknownModel)
})

test('what another host left is not touched', () => {
  const { store, settle, path } = leftover()
  settle('other')
  expect(store.published.size).toBe(0)
  expect(existsSync(path)).toBe(true)
})

test('a store that refuses leaves the checkpoint for the next start', () => {
  const { store, settle, path } = leftover()
  store.failing = 'publish'
  settle('h')
  expect(existsSync(path)).toBe(true)
  store.failing = null
  settle('h')
  expect(store.published.has('chat-a')).toBe(true)
  expect(existsSync(path)).toBe(false)
})

test('a crash while the ends of requests are published stores none of them twice', () => {
  const { store, settle, path } = leftover()
  for (const point of ['in publish', 'after publish'] as const) {
    // The first call publishes what the checkpoint names, the second the ends.
    const publish = store.sink
    let calls = 0
    store.sink = () => {
      const sink = publish()
      return {
        ...sink,
        publish(names) {
          calls += 1
          store.crashAt = calls === 2 ? point : null
          return sink.publish(names)
        },
      }
    }
    expect(() => settle('h')).toThrow(Crash)
    store.sink = publish
    store.crashAt = null
    expect(existsSync(path)).toBe(true)
  }
  settle('h')
  expect(store.summaries().map(({ request }) => request.requestId)).toEqual(['request-1'])
  expect(existsSync(path)).toBe(false)
})
