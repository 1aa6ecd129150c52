import { expect, test } from 'vitest'
import { get, healthy, openServer, tensorUrl, traceA } from './fixture.ts'

test('health and readiness follow what the service says', async () => {
  const well = await openServer()
  expect((await get(well.app, '/healthz')).json()).toEqual({ status: 'ok', checks: healthy.checks })
  expect((await get(well.app, '/readyz')).statusCode).toBe(200)
  const starting = await openServer({ health: () => ({ ...healthy, ready: false }) })
  expect((await get(starting.app, '/healthz')).statusCode).toBe(200)
  const ready = await get(starting.app, '/readyz')
  expect([ready.statusCode, ready.json().status]).toEqual([503, 'failing'])
  const dead = await openServer({ health: () => ({ ...healthy, alive: false }) })
  expect((await get(dead.app, '/healthz')).statusCode).toBe(503)
  expect((await get(dead.app, '/readyz')).statusCode).toBe(503)
})

test('rings and metrics are what the service gives', async () => {
  const { app } = await openServer()
  expect((await get(app, '/v1/rings')).json()).toEqual({ segments: [] })
  const metrics = await get(app, '/metrics')
  expect(metrics.headers['content-type']).toBe('text/plain; version=1')
  expect(metrics.body).toBe('ring2_up 1\n')
})

test('/metrics is in the format that the scraper accepts', async () => {
  const { app } = await openServer({
    metrics: (accept) => ({ contentType: 'text/plain', body: `for ${accept}` }),
  })
  const headers = { accept: 'text/plain;version=0.0.4' }
  const page = await app.inject({ method: 'GET', url: '/metrics', headers })
  expect(page.body).toBe('for text/plain;version=0.0.4')
  expect(page.headers.vary).toBe('accept')
})

test('the page at / explains the routes and may load nothing', async () => {
  const { app } = await openServer()
  const page = await get(app, '/')
  expect(page.headers['content-type']).toBe('text/html; charset=utf-8')
  expect(page.headers['content-security-policy']).toContain("default-src 'none'")
  expect(page.body).toContain('/v1/traces/{trace_id}/tensors/{hook}/{layer}')
  expect(page.body).toContain('ring2-exporter 0.1.0')
  expect(page.body).toContain("curl -O -J 'http://tensors.example:8080/v1/traces/TRACE_ID/")
})

test('/openapi.json describes every route with its parameters', async () => {
  const { app } = await openServer()
  const document = (await get(app, '/openapi.json')).json()
  expect(document.openapi).toBe('3.1.0')
  expect(Object.keys(document.paths).sort()).toEqual([
    '/healthz',
    '/metrics',
    '/readyz',
    '/v1/rings',
    '/v1/traces',
    '/v1/traces/{trace_id}',
    '/v1/traces/{trace_id}/tensors',
    '/v1/traces/{trace_id}/tensors/{hook}/{layer}',
    '/v1/traces/{trace_id}/tokens',
    '/v1/traces/{trace_id}/tokens/{position}/alternatives',
    '/v1/traces/{trace_id}/views/norms',
    '/v1/traces/{trace_id}/views/pattern/{layer}',
  ])
  const tensor = document.paths['/v1/traces/{trace_id}/tensors/{hook}/{layer}'].get
  const names = tensor.parameters.map((one: { name: string }) => one.name).sort()
  expect(names).toEqual([
    'format',
    'heads',
    'hook',
    'layer',
    'producer',
    'rank',
    'request_id',
    'require',
    'tokens',
    'trace_id',
  ])
  expect(Object.keys(tensor.responses)).toEqual([
    '200',
    '206',
    '304',
    '400',
    '401',
    '404',
    '409',
    '413',
    '416',
    '500',
    '503',
  ])
})

test('with a token, data routes ask for it and health does not', async () => {
  const { app } = await openServer({ token: 'secret-token' })
  for (const url of ['/v1/traces', `/v1/traces/${traceA}`, tensorUrl, '/v1/rings', '/metrics']) {
    const answer = await get(app, url)
    expect([url, answer.statusCode, answer.json().code]).toEqual([url, 401, 'RING2_E_UNAUTHORIZED'])
    expect(answer.headers['www-authenticate']).toBe('Bearer')
    expect(answer.body).not.toContain('secret-token')
    const right = await get(app, url, { authorization: 'Bearer secret-token' })
    expect([url, right.statusCode]).toEqual([url, 200])
  }
  for (const wrong of ['Bearer secret-toke', 'Bearer ', 'Basic c2VjcmV0', 'secret-token']) {
    expect((await get(app, '/v1/traces', { authorization: wrong })).statusCode).toBe(401)
  }
  expect((await get(app, '/healthz')).statusCode).toBe(200)
  expect((await get(app, '/readyz')).statusCode).toBe(200)
  expect((await get(app, '/openapi.json')).statusCode).toBe(200)
})

test('/openapi.json says which routes ask for the token, and only when one is set', async () => {
  const secured = await openServer({ token: 'secret-token' })
  const document = (await get(secured.app, '/openapi.json')).json()
  expect(document.components.securitySchemes).toEqual({
    bearer: { type: 'http', scheme: 'bearer' },
  })
  const asking = Object.entries<{ get: { security?: unknown } }>(document.paths)
    .filter(([, path]) => path.get.security !== undefined)
    .map(([path]) => path)
  expect(asking).toContain('/v1/traces/{trace_id}/tensors/{hook}/{layer}')
  expect(asking).toContain('/v1/traces')
  expect(asking).not.toContain('/healthz')
  const open = (await get((await openServer()).app, '/openapi.json')).json()
  expect(JSON.stringify(open)).not.toContain('"bearer"')
})

test('a defect is 500 with a code, and its stack stays inside', async () => {
  const { app } = await openServer({
    rings: () => {
      throw new TypeError('cannot read that')
    },
  })
  const answer = await get(app, '/v1/rings')
  expect([answer.statusCode, answer.json().code]).toEqual([500, 'RING2_E_INTERNAL_EXPORTER'])
  expect(answer.body).not.toContain('.ts:')
})

test('the scheme of the token is taken in any case', async () => {
  const { app } = await openServer({ token: 'secret' })
  for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
    const answer = await get(app, '/v1/rings', { authorization: `${scheme} secret` })
    expect(answer.statusCode).toBe(200)
  }
  const wrong = await get(app, '/v1/rings', { authorization: 'bearer wrong' })
  expect(wrong.statusCode).toBe(401)
})

test('without a token, data is for those who reach this machine by its own name', async () => {
  const { app } = await openServer()
  for (const host of ['evil.example', 'evil.example:9464', '127.0.0.1.evil.example']) {
    for (const url of ['/v1/rings', '/metrics', tensorUrl]) {
      const answer = await get(app, url, { host })
      expect(answer.statusCode).toBe(401)
      expect(answer.json()).toMatchObject({ code: 'RING2_E_UNAUTHORIZED' })
    }
    expect((await get(app, '/healthz', { host })).statusCode).toBe(200)
  }
  for (const host of ['127.0.0.1:9464', 'localhost', '[::1]:9464', 'tensors.example']) {
    expect((await get(app, '/v1/rings', { host })).statusCode).toBe(200)
  }
})
