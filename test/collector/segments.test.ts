import { mkdirSync, renameSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { findSegments, producerName, readSegments } from '../../collector/segments.ts'
import { temporaryFolder } from '../exporter/tensors/temporary-folder.ts'
import { openProducer, poke, type TestProducer, word64 } from '../helpers/producer.ts'

function segment(directory: string, name: string): TestProducer {
  const producer = openProducer({ directory, name, payloadBytes: 65_536, metaSlots: 64 })
  onTestFinished(() => producer.close())
  return producer
}

const names = (paths: readonly string[]) => paths.map((path) => path.split('/').at(-1))

test('segments are found by name and pattern, in the order of their names', () => {
  const directory = temporaryFolder()
  for (const file of ['ring2.chat', 'ring2.chat-2', 'ring2.api.v1', 'other', 'ring2']) {
    writeFileSync(join(directory, file), '')
  }
  mkdirSync(join(directory, 'ring2.folder'))
  symlinkSync('/dev/zero', join(directory, 'ring2.link'))
  const find = (...patterns: string[]) => names(findSegments(directory, patterns))
  expect(names(findSegments(directory))).toEqual(['ring2.api.v1', 'ring2.chat', 'ring2.chat-2'])
  expect(find('chat')).toEqual(['ring2.chat'])
  expect(find('chat*')).toEqual(['ring2.chat', 'ring2.chat-2'])
  expect(find('chat-?')).toEqual(['ring2.chat-2'])
  expect(find('api.v1', 'chat')).toEqual(['ring2.api.v1', 'ring2.chat'])
  // A dot is a dot, not any character.
  expect(find('apixv1', 'api.v.')).toEqual([])
  expect(find('(chat|api)', '[', '+')).toEqual([])
  expect(find()).toEqual([])
})

test('a segment that was moved aside is found under the name its producer gave it', () => {
  const directory = temporaryFolder()
  writeFileSync(join(directory, 'ring2.chat~00ff00ff00ff00ff'), '')
  expect(names(findSegments(directory, ['chat']))).toEqual(['ring2.chat~00ff00ff00ff00ff'])
  expect(producerName('chat~00ff00ff00ff00ff')).toBe('chat')
  expect(producerName('chat')).toBe('chat')
})

test('files that are no segments do not hide those that are', () => {
  const directory = temporaryFolder()
  for (let index = 0; index < 100; index++) writeFileSync(join(directory, `ring2.a${index}`), '')
  const live = openProducer({ directory, name: 'live', payloadBytes: 65_536 })
  expect(findSegments(directory)).toHaveLength(101)
  const found = readSegments(directory, ['*'])
  live.close()
  expect(found.segments.map(({ segment }) => segment)).toEqual(['live'])
})

test('the counters of a segment are those of what was written', () => {
  const directory = temporaryFolder()
  const producer = segment(directory, 'counted')
  producer.model()
  producer.request({ key: 1, request_id: 'r' })
  producer.countLoss(5, 2, 0)
  const { segments, unreadable } = readSegments(directory, ['*'])
  expect(unreadable).toEqual([])
  expect(segments).toEqual([
    expect.objectContaining({
      segment: 'counted',
      path: producer.path,
      boot: expect.stringMatching(/^[0-9a-f]{16}$/),
      producerPid: process.pid,
      producerAlive: true,
      producerClosed: false,
      consumerPid: 0,
      committedRecords: 2,
      metaUsed: 2,
      payloadBytes: 65_536,
      losses: [{ reason: 'unsupported', records: 2, bytes: 0 }],
    }),
  ])
})

test('counters that no number holds are shown as the largest one, not thrown', () => {
  const directory = temporaryFolder()
  const producer = segment(directory, 'hostile')
  poke(producer.path, 336, word64(2n ** 63n))
  expect(readSegments(directory, ['*']).segments[0]?.committedRecords).toBe(Number.MAX_SAFE_INTEGER)
})

test('what cannot be read is reported beside what can, each with its code', () => {
  const directory = temporaryFolder()
  segment(directory, 'good')
  writeFileSync(join(directory, 'ring2.text'), 'not a segment at all')
  writeFileSync(join(directory, 'ring2.empty'), '')
  const newer = segment(directory, 'newer')
  poke(newer.path, 8, Buffer.from([2, 0, 0, 0]))
  const short = segment(directory, 'short')
  const copy = join(directory, 'ring2.short')
  truncateSync(copy, 4096)
  const { segments, unreadable } = readSegments(directory, ['*'])
  expect(segments.map((one) => one.segment)).toEqual(['good'])
  expect(unreadable.map(({ path, error }) => [names([path])[0], error.code])).toEqual([
    ['ring2.empty', 'RING2_E_NOT_A_SEGMENT'],
    ['ring2.newer', 'RING2_E_VERSION'],
    ['ring2.short', 'RING2_E_NOT_A_SEGMENT'],
    ['ring2.text', 'RING2_E_NOT_A_SEGMENT'],
  ])
  for (const { path, error } of unreadable) {
    expect(error.actual).toContain(path)
    expect(error.action).not.toBe('')
  }
  // Whoever closes it must not touch what is not there any more.
  renameSync(short.path, join(directory, 'gone'))
})

test('a directory that does not exist is an error with its path', () => {
  expect(() => findSegments('/no/such/directory')).toThrow('/no/such/directory')
})
