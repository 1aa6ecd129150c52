import { describe, expect, test } from 'vitest'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { openServer, traceA } from './fixture.ts'

async function openDeletable(token: string | null = null) {
  const asked: [string, string | null][] = []
  const opened = await openServer({
    token,
    deleteTrace: async (traceId, requestId) => {
      asked.push([traceId, requestId])
      const { location, store, catalog } = opened.store
      const context = { location, store, bucket: null, catalog, fsync: false, settleMillis: 0 }
      return await deleteTrace(context, traceId, requestId)
    },
  })
  return { ...opened, asked }
}

const url = `/v1/traces/${traceA}`

describe('DELETE /v1/traces/{trace_id}', () => {
  test('removes the trace and says what it removed, as /openapi.json describes', async () => {
    const { app, asked } = await openDeletable()
    const answer = await app.inject({ method: 'DELETE', url: `${url}?request_id=request-1` })
    expect(answer.statusCode).toBe(200)
    expect(asked).toEqual([[traceA, 'request-1']])
    const document = (await app.inject('/openapi.json')).json()
    const described =
      document.paths['/v1/traces/{trace_id}'].delete.responses['200'].content['application/json']
    expect(Object.keys(answer.json())).toEqual(Object.keys(described.schema.properties))
    expect((await app.inject(url)).statusCode).toBe(404)
  })

  test('needs the token where there is one', async () => {
    const { app, asked } = await openDeletable('secret')
    expect((await app.inject({ method: 'DELETE', url })).statusCode).toBe(401)
    const wrong = { authorization: 'Bearer wrong' }
    expect((await app.inject({ method: 'DELETE', url, headers: wrong })).statusCode).toBe(401)
    expect(asked).toEqual([])
    const headers = { authorization: 'Bearer secret', host: 'tensors.example' }
    expect((await app.inject({ method: 'DELETE', url, headers })).statusCode).toBe(200)
  })

  test('without a token takes no request that reached it by another name', async () => {
    const { app, asked } = await openDeletable()
    for (const host of ['evil.example', 'evil.example:9464', '127.0.0.1.evil.example']) {
      const answer = await app.inject({ method: 'DELETE', url, headers: { host } })
      expect(answer.statusCode).toBe(401)
      expect(answer.json()).toMatchObject({ code: 'RING2_E_UNAUTHORIZED' })
    }
    expect(asked).toEqual([])
    for (const host of ['127.0.0.1:9464', 'localhost:9464', '[::1]:9464']) {
      const answer = await app.inject({ method: 'DELETE', url, headers: { host } })
      expect([200, 404]).toContain(answer.statusCode)
    }
    expect(asked).toHaveLength(3)
  })

  test('refuses what is no trace id, and parameters that it does not know', async () => {
    const { app, asked } = await openDeletable()
    for (const wrong of ['/v1/traces/*', '/v1/traces/..%2fx', `${url}?request=1`]) {
      expect((await app.inject({ method: 'DELETE', url: wrong })).statusCode).toBe(400)
    }
    expect(asked).toEqual([])
  })

  test('is no route where nothing can be deleted', async () => {
    const { app } = await openServer()
    expect((await app.inject({ method: 'DELETE', url })).statusCode).toBe(404)
  })
})
