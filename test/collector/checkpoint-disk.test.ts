import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { unknownModel } from '../../collector/bodies.ts'
import { readCheckpoint, writeCheckpoint } from '../../collector/checkpoint.ts'
import type { ProducerInfo } from '../../collector/records.ts'
import { temporaryFolder } from '../exporter/tensors/temporary-folder.ts'

const producer: ProducerInfo = { segment: 'chat', boot: '00c0ffee00c0ffee', host: 'h', pid: 7 }
const facts = {
  directory: '/dev/shm',
  position: 1,
  files: [],
  steps: [],
  registry: { model: unknownModel, requests: [] },
}
const limitBytes = 64 * 1024

test('a write that the disk cuts short is refused, and the checkpoint before it stays', () => {
  const directory = temporaryFolder()
  writeCheckpoint(directory, producer, facts, false)
  const module = join(import.meta.dirname, '../../collector/checkpoint.ts')
  const script = `
    const { writeCheckpoint } = await import(${JSON.stringify(module)})
    const [directory, producer, facts] = process.argv.slice(1).map((text) => JSON.parse(text))
    const larger = { ...facts, steps: ['x'.repeat(${4 * limitBytes})] }
    console.log(writeCheckpoint(directory, producer, larger, false).status)`
  const words = [directory, producer, { ...facts, position: 2 }].map((word) => JSON.stringify(word))
  // The system call writes up to the limit and says so; only the next one is an error.
  const limited = [`--fsize=${limitBytes}`, process.execPath, '--input-type=module', '-e', script]
  const done = spawnSync('prlimit', [...limited, ...words], { encoding: 'utf8' })
  expect(done).toMatchObject({ stdout: 'retryable\n', status: 0 })
  expect(readCheckpoint(directory, producer)?.position).toBe(1)
  expect(readdirSync(directory)).toEqual(['chat-00c0ffee00c0ffee.checkpoint.json'])
})
