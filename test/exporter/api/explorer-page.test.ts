import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { explorerFolder } from '../../../exporter/api/explorer-page.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { get, openServer, traceA } from './fixture.ts'

const built = readFileSync(join(explorerFolder, 'index.html'), 'utf8')
const assets = [...built.matchAll(/"(\/assets\/[^"]+)"/g)].map((match) => match[1] ?? '')

test('the page comes at / and for every trace, and its policy allows its own files alone', async () => {
  const { app } = await openServer({ explorer: explorerFolder })
  for (const url of ['/', `/t/${traceA}`, '/t/anything?tab=norms']) {
    const page = await get(app, url)
    expect([page.statusCode, page.headers['content-type']]).toEqual([
      200,
      'text/html; charset=utf-8',
    ])
    expect(page.body).toBe(built)
    expect(page.headers['cache-control']).toBe('no-cache')
    const policy = String(page.headers['content-security-policy']).split('; ')
    expect(policy).toContain("default-src 'none'")
    expect(policy).toContain("script-src 'self'")
    expect(policy).toContain("connect-src 'self'")
    expect(policy).toContain("frame-ancestors 'none'")
    expect(policy.join(' ')).not.toMatch(/unsafe|\*|https?:/)
  }
  expect(built).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\son\w+=|https?:/)
})

test('assets have their types, stay in caches for good, and nothing else is served', async () => {
  const { app } = await openServer({ explorer: explorerFolder })
  expect(assets.map((path) => path.split('.').pop()).sort()).toEqual(['css', 'js', 'svg'])
  for (const path of assets) {
    const asset = await get(app, path)
    expect(asset.statusCode).toBe(200)
    expect(asset.headers['cache-control']).toBe('public, max-age=31536000, immutable')
    expect(asset.headers['x-content-type-options']).toBe('nosniff')
    expect(asset.rawPayload.equals(readFileSync(join(explorerFolder, path)))).toBe(true)
  }
  const types = await Promise.all(
    assets.map(async (path) => (await get(app, path)).headers['content-type']),
  )
  expect(types.sort()).toEqual([
    'image/svg+xml',
    'text/css; charset=utf-8',
    'text/javascript; charset=utf-8',
  ])
  for (const path of [
    '/assets/none.js',
    '/assets/..%2Findex.html',
    '/assets/%2e%2e%2f%2e%2e%2fpackage.json',
  ]) {
    const answer = await get(app, path)
    expect([path, answer.statusCode, answer.json().code]).toEqual([path, 404, 'RING2_E_NOT_FOUND'])
  }
})

test('the page asks for no token, and the data behind it does', async () => {
  const { app } = await openServer({
    explorer: explorerFolder,
    token: 'secret',
    storeUrl: '/store',
  })
  expect((await get(app, '/')).statusCode).toBe(200)
  expect((await get(app, assets[0] ?? '')).statusCode).toBe(200)
  for (const url of ['/v1/traces', `/v1/traces/${traceA}/tokens`, '/v1/store']) {
    expect([url, (await get(app, url)).statusCode]).toEqual([url, 401])
  }
  const store = await get(app, '/v1/store', { authorization: 'Bearer secret' })
  expect(store.json()).toEqual({ url: '/store' })
})

test('below a public address with a path, the page asks for everything below that path', async () => {
  const { app } = await openServer({
    explorer: explorerFolder,
    baseUrl: () => 'https://models.example/ring2&"x',
  })
  const { body } = await get(app, '/')
  expect(body).toContain('name="ring2-base" content="/ring2&amp;%22x"')
  expect(body).toContain('src="/ring2&amp;%22x/assets/')
  expect(body).not.toContain('"/assets/')
})

test('where it is not built, the page says what builds it', async () => {
  const empty = temporaryFolder()
  const { app } = await openServer({ explorer: join(empty, 'none') })
  const page = await get(app, '/')
  expect(page.statusCode).toBe(200)
  expect(page.body).toContain('<code>npm run setup</code>')
  expect((await get(app, `/t/${traceA}`)).body).toBe(page.body)
  expect((await get(app, '/assets/index.js')).statusCode).toBe(404)
})

test('files that are no assets are not served, wherever they lie', async () => {
  const folder = temporaryFolder()
  mkdirSync(join(folder, 'assets'))
  writeFileSync(join(folder, 'index.html'), built)
  writeFileSync(join(folder, 'assets', 'secret.env'), 'TOKEN=1')
  const { app } = await openServer({ explorer: folder })
  expect((await get(app, '/assets/secret.env')).statusCode).toBe(404)
  expect((await get(app, '/index.html')).statusCode).toBe(404)
})
