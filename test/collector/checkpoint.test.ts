import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { unknownModel } from '../../collector/bodies.ts'
import {
  checkpointPath,
  orphanedCheckpoints,
  readCheckpoint,
  removeCheckpoint,
  writeCheckpoint,
} from '../../collector/checkpoint.ts'
import type { ProducerInfo } from '../../collector/records.ts'
import { temporaryFolder } from '../exporter/tensors/temporary-folder.ts'

const producer: ProducerInfo = { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'h', pid: 7 }
const facts = {
  directory: '/dev/shm',
  position: 123_456_789,
  files: ['chat-00c0ffee/a.parquet', 'chat-00c0ffee/b.parquet'],
  steps: [Buffer.from([1, 2, 3]).toString('base64')],
  registry: { model: unknownModel, requests: [] },
}

test.each([[true], [false]])('what is written is read again (fsync %s)', (fsync) => {
  const directory = join(temporaryFolder(), 'made', 'when', 'needed')
  expect(writeCheckpoint(directory, producer, facts, fsync)).toMatchObject({ status: 'success' })
  expect(readCheckpoint(directory, producer)).toEqual({
    version: 1,
    ...producer,
    ...facts,
  })
})

test('none is null', () => {
  expect(readCheckpoint(temporaryFolder(), producer)).toBeNull()
  expect(readCheckpoint('/no/such/directory', producer)).toBeNull()
})

test('a newer one replaces the older one, and no other file is left', () => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  writeCheckpoint(directory, producer, { ...facts, position: 5 }, false)
  expect(readCheckpoint(directory, producer)?.position).toBe(5)
  expect(readdirSync(directory)).toEqual(['chat-00c0ffee00c0ffee.checkpoint.json'])
})

test('another life of the producer has another checkpoint', () => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  expect(readCheckpoint(directory, { ...producer, boot: '1111111111111111' })).toBeNull()
})

test.each<[string, (path: string) => void, string]>([
  ['cut short', (path) => truncateSync(path, 40), 'JSON'],
  ['empty', (path) => truncateSync(path, 0), 'JSON'],
  ['of another version', (path) => edit(path, { version: 2 }), 'version 2'],
  ['of another boot', (path) => edit(path, { boot: 'ffff' }), 'boot ffff'],
])('one that is %s is an error that names the file and what to do', (_, damage, actual) => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  const path = checkpointPath(directory, producer)
  damage(path)
  expect(() => readCheckpoint(directory, producer)).toThrow(
    expect.objectContaining({
      code: 'RING2_E_STORE',
      expected: expect.stringContaining(path),
      actual: expect.stringContaining(actual),
      action: expect.stringContaining('Remove the file'),
    }),
  )
  // It is evidence, and must not be replaced by a guess.
  expect(existsSync(path)).toBe(true)
})

function edit(path: string, change: Record<string, unknown>): void {
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }))
}

test('a directory that cannot be made may be tried again, and says so', () => {
  const file = join(temporaryFolder(), 'file')
  writeFileSync(file, '')
  const outcome = writeCheckpoint(join(file, 'below'), producer, facts, false)
  expect(outcome).toMatchObject({
    status: 'retryable',
    error: { code: 'RING2_E_STORE', actual: expect.stringContaining('ENOTDIR') },
  })
})

test('removing is final, and harmless twice', () => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  removeCheckpoint(directory, producer)
  removeCheckpoint(directory, producer)
  expect(readCheckpoint(directory, producer)).toBeNull()
})

test('one whose segment is gone is an orphan, but not on another host or in another directory', () => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  const orphans = (host: string, segments: string, boots: string[]) =>
    orphanedCheckpoints(directory, host, segments, new Set(boots)).map(({ boot }) => boot)
  expect(orphans('h', '/dev/shm', [])).toEqual([producer.boot])
  expect(orphans('h', '/dev/shm', [producer.boot])).toEqual([])
  expect(orphans('other', '/dev/shm', [])).toEqual([])
  expect(orphans('h', '/elsewhere', [])).toEqual([])
  expect(orphanedCheckpoints('/no/such/directory', 'h', '/dev/shm', new Set())).toEqual([])
})
