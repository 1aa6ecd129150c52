/** `demo --engine`: the servers that users have, end to end, compared with Transformers. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { DemoDocument } from '../../exporter/demo/document.ts'
import { python } from '../helpers/otlp-receiver.ts'
import { modelFolder, repository } from '../pipeline/processes.ts'
import { demoEnvironment } from './llama/engine.ts'

const store = mkdtempSync(join(tmpdir(), 'ring2-demo-engines-'))

afterAll(() => rmSync(store, { recursive: true }))

test.each(['llama.cpp', 'vllm'])(
  'the demo runs %s, and its tensors are those of Transformers',
  (engine) => {
    const words = ['demo', '--engine', engine, '--json', '--store', store]
    const done = spawnSync(
      process.execPath,
      [join(repository, 'bin/ring2-exporter.js'), ...words],
      {
        encoding: 'utf8',
        env: {
          ...process.env,
          ...demoEnvironment,
          RING2_PYTHON: python,
          RING2_MODEL_DIR: modelFolder(),
          OTEL_EXPORTER_OTLP_ENDPOINT: '',
        },
      },
    )
    expect(done.status, done.stderr).toBe(0)
    const { requests, verified, losses } = JSON.parse(done.stdout) as DemoDocument
    expect(requests).toHaveLength(6)
    expect(new Set(requests.map(({ trace_id }) => trace_id)).size).toBe(6)
    for (const request of requests) {
      expect(request).toMatchObject({ completeness: 'complete', verdict: 'ok' })
      expect(request.norms.length).toBe(30)
    }
    expect(verified.equal).toBe(true)
    expect(verified.difference).toBeGreaterThan(0)
    expect(losses).toEqual([])
  },
)
