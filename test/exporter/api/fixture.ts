/** A server over a store with one ended request, asked through inject: no port is opened. */

import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import { expect } from 'vitest'
import type { Health, ServerDependencies } from '../../../exporter/api/dependencies.ts'
import { buildServer } from '../../../exporter/api/server.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { createVocabularyReader } from '../../../exporter/tensors/vocabularies.ts'
import {
  floats,
  otherModel,
  otherProducer,
  request,
  row,
  summary,
  traceA,
} from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

export const healthy: Health = {
  alive: true,
  ready: true,
  checks: [{ name: 'store', ok: true, detail: 'writable' }],
}

export async function openServer(change: Partial<ServerDependencies> = {}) {
  const root = temporaryFolder()
  const store = openFixture(root)
  store.flush(
    [
      row({ tokenStart: 0, tokenEnd: 2, shape: [2, 2], data: floats(1, 2, 3, 4) }),
      row({ tokenStart: 2, tokenEnd: 3, step: 1, shape: [1, 2], data: floats(5, 6) }),
      row({
        hook: 'pattern',
        tokenEnd: 2,
        shape: [2, 2, 2],
        data: floats(1, 0, 0.5, 0.5, 1, 0, 0.25, 0.75),
      }),
      row({ hook: 'final_logits', layer: -1, tokenEnd: 2, shape: [1, 3], data: floats(7, 8, 9) }),
    ],
    [summary()],
  )
  const app = await buildServer({
    catalog: store.catalog,
    reader: store.reader(),
    vocabularies: createVocabularyReader(store.catalog, createParquetSource(store.store)),
    rings: () => ({ segments: [] }),
    metrics: () => ({ contentType: 'text/plain; version=1', body: 'ring2_up 1\n' }),
    health: () => healthy,
    token: null,
    version: '0.1.0',
    baseUrl: () => 'http://tensors.example:8080',
    logger: null,
    ...change,
  })
  return { app, root, store }
}

export const tensorUrl = `/v1/traces/${traceA}/tensors/resid_pre/0`

/** GET; checks that every error is a complete problem and that answers fit their schema. */
export async function get(app: FastifyInstance, url: string, headers = {}) {
  const answer = await app.inject({ method: 'GET', url, headers })
  if (answer.statusCode >= 400 && !url.includes('healthz') && !url.includes('readyz')) {
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    const problem = answer.json()
    expect(problem).toEqual({
      type: `urn:ring2:error:${problem.code}`,
      title: expect.stringMatching(/\S/),
      status: answer.statusCode,
      code: expect.stringMatching(/^RING2_E_/),
      expected: expect.stringMatching(/\S/),
      actual: expect.stringMatching(/\S/),
      action: expect.stringMatching(/\S/),
    })
  }
  return answer
}

/** Throws unless the value fits the schema that /openapi.json shows for the path. */
export async function expectDescribed(app: FastifyInstance, path: string, value: unknown) {
  const document = (await app.inject('/openapi.json')).json()
  const schema = document.paths[path].get.responses['200'].content['application/json'].schema
  const ajv = new Ajv2020({ strict: false })
  const valid = ajv.validate(schema, value)
  expect(ajv.errors ?? []).toEqual([])
  expect(valid).toBe(true)
}

export { floats, otherModel, otherProducer, request, row, summary, traceA }
