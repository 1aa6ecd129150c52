/**
 * A store as the commands of its tests find it: request 1 is whole, request 2 lost a tensor of its
 * second step, and request 3 has values that are no numbers.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { deriveTraceId } from '../../collector/ids.ts'
import { float32, openProducer } from '../helpers/producer.ts'
import {
  beginRequest,
  endRequest,
  stepValues,
  writeRequest,
  writeStep,
} from '../helpers/requests.ts'
import {
  exporterEnvironment,
  type Finished,
  get,
  repository,
  startExporter,
  type Workspace,
} from './processes.ts'

export const trace = deriveTraceId('request-1')
export const openTrace = deriveTraceId('request-2')

export const tensorsStored = 3 * 2 + 2 + 1 + 2

export async function fillStore(workspace: Workspace): Promise<void> {
  const exporter = await startExporter(workspace)
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  producer.model()
  writeRequest(producer, 1, 3, 3)
  // Of its second step, request 2 lost the tensor of layer 0.
  beginRequest(producer, 2)
  writeStep(producer, 2, 0, 2)
  producer.step({ step: 2001, columns: 1, rows: [{ key: 2, start: 2, end: 3, phase: 'decode' }] })
  const tensor = { hook: 'resid_pre', layer: 1, step: 2001, dims: [1, 1, 4] }
  producer.tensor(tensor, float32(stepValues(2, 1, 1, 1)))
  producer.requestEnd({ key: 2, steps: 2, tokens: 3, prompt_tokens: 2, outcome: 'ok' })
  // Request 3 has values that are no numbers.
  beginRequest(producer, 3)
  producer.step({ step: 3000, columns: 1, rows: [{ key: 3, start: 0, end: 1, phase: 'prefill' }] })
  for (const layer of [0, 1]) {
    const broken = { hook: 'resid_pre', layer, step: 3000, dims: [1, 1, 4] }
    producer.tensor(broken, float32([Number.NaN, 1, 2, 3]))
  }
  endRequest(producer, 3, 1, 1)
  producer.close()
  await vi.waitUntil(
    async () => {
      const { traces } = (await get(`${exporter.url}/v1/traces`)).json<{ traces: unknown[] }>()
      return traces.length === 3 && !existsSync(producer.path)
    },
    { timeout: 30_000, interval: 100 },
  )
  expect(await exporter.stop()).toBe(0)
}

/** A command whose output goes to another; its exit code is the last line on standard error. */
export function pipe(workspace: Workspace, words: readonly string[], reader: string): Finished {
  const line = `{ "$0" "$@"; echo $? >&2; } | ${reader}`
  const command = [process.execPath, join(repository, 'bin/ring2-exporter.js'), ...words]
  const done = spawnSync('sh', ['-c', line, ...command], {
    env: exporterEnvironment(workspace, {}),
    cwd: workspace.root,
    encoding: 'utf8',
  })
  return { code: done.status, stdout: done.stdout, stderr: done.stderr }
}
