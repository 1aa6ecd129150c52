/** Answers about a trace, with what other exporters of a bucket stored of it, or without. */
import { expect, test } from 'vitest'
import { Ring2Error } from '../../../exporter/errors.ts'
import { get, openServer, tensorUrl, traceA } from './fixture.ts'

function unreachable(): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: 'to list s3://bucket',
    actual: 'ECONNREFUSED\r\nx: ö',
  })
}

test('a trace is looked for before every answer about it, and before no other', async () => {
  const looked: string[] = []
  const { app } = await openServer({
    findTrace: async (traceId) => {
      looked.push(traceId)
      return []
    },
  })
  for (const url of [`/v1/traces/${traceA}`, `/v1/traces/${traceA}/tensors`, tensorUrl]) {
    const answer = await get(app, url)
    expect([url, answer.statusCode]).toEqual([url, 200])
    expect(answer.headers['x-ring2-local-only']).toBeUndefined()
  }
  expect(looked).toEqual([traceA, traceA, traceA])
  await get(app, '/v1/traces')
  await get(app, '/v1/traces/not-a-trace')
  await get(app, '/healthz')
  expect(looked).toHaveLength(3)
})

test('an answer that may lack something says so', async () => {
  const { app } = await openServer({ findTrace: async () => [unreachable()] })
  const answer = await get(app, `/v1/traces/${traceA}`)
  expect(answer.statusCode).toBe(200)
  expect(answer.headers['x-ring2-local-only']).toBe('ECONNREFUSED x:  ')
})

test('when nothing is known the error is that of the bucket, and not that the trace is unknown', async () => {
  const { app } = await openServer({
    findTrace: async () => {
      throw unreachable()
    },
  })
  const answer = await get(app, `/v1/traces/${'d'.repeat(32)}`)
  expect([answer.statusCode, answer.json().code]).toEqual([503, 'RING2_E_STORE'])
})

test('whoever has no token makes nothing be looked for', async () => {
  const looked: string[] = []
  const { app } = await openServer({
    token: 'secret-token',
    findTrace: async (traceId) => {
      looked.push(traceId)
      return []
    },
  })
  expect((await get(app, `/v1/traces/${traceA}`)).statusCode).toBe(401)
  expect(looked).toEqual([])
})
