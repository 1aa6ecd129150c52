/**
 * Serves the explorer: the page at `/` and at `/t/{trace_id}`, and what it loads from `/assets/`. It holds no
 * data, so it asks for no token; the routes that it reads do. Files are read once, at the start, and only
 * those are served: no address reaches the disk. Not built, the page says what builds it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import type { FastifyPluginAsync, FastifyReply } from 'fastify'
import { systemCode } from '../errors.ts'
import type { ServerDependencies } from './dependencies.ts'
import { pageOf } from './page.ts'
import { notFound } from './problem.ts'

/** Where `npm run setup` builds it. */
export const explorerFolder = join(import.meta.dirname, '../../build/explorer')

const contentTypes: Readonly<Record<string, string>> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** Own files alone, and no string becomes markup: lit-html's templates are the one way to make some. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  'trusted-types lit-html',
].join('; ')

interface Asset {
  readonly type: string
  readonly body: Buffer
}

interface Built {
  readonly page: string
  readonly assets: ReadonlyMap<string, Asset>
}

export function explorerPageRoutes(dependencies: ServerDependencies): FastifyPluginAsync {
  const built = dependencies.explorer === undefined ? null : readBuilt(dependencies.explorer)
  return async (app) => {
    const hidden = { schema: { hide: true } }
    const answer = async (_request: unknown, reply: FastifyReply) => sendPage(reply, built)
    app.get('/', hidden, answer)
    app.get('/t/:trace_id', hidden, answer)
    app.get<{ Params: { name: string } }>('/assets/:name', hidden, async (request, reply) => {
      const asset = built?.assets.get(request.params.name)
      if (asset === undefined) throw notFound('an asset that this version does not have')
      // Its name has the hash of its content.
      reply.header('cache-control', 'public, max-age=31536000, immutable')
      return reply.type(asset.type).send(asset.body)
    })
  }

  function sendPage(reply: FastifyReply, files: Built | null): FastifyReply {
    reply.header('referrer-policy', 'no-referrer')
    reply.type('text/html; charset=utf-8')
    if (files === null) {
      reply.header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'")
      return reply.send(pageOf(dependencies.version, dependencies.baseUrl()))
    }
    reply.header('content-security-policy', contentSecurityPolicy)
    reply.header('cache-control', 'no-cache')
    return reply.send(pageBelow(files.page, new URL(dependencies.baseUrl()).pathname))
  }
}

/** Null when it is not built. */
function readBuilt(folder: string): Built | null {
  try {
    const page = readFileSync(join(folder, 'index.html'), 'utf8')
    const names = readdirSync(join(folder, 'assets'))
    const assets = names.flatMap((name): [string, Asset][] => {
      const type = contentTypes[extname(name)]
      if (type === undefined) return []
      return [[name, { type, body: readFileSync(join(folder, 'assets', name)) }]]
    })
    return { page, assets: new Map(assets) }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}

/** For an exporter whose public address has a path: assets and routes are below it. */
function pageBelow(page: string, path: string): string {
  const base = path.replace(/\/+$/, '')
  if (base === '') return page
  const escaped = base.replaceAll('&', '&amp;').replaceAll('"', '&quot;')
  return page
    .replaceAll('"/assets/', () => `"${escaped}/assets/`)
    .replace('name="ring2-base" content=""', () => `name="ring2-base" content="${escaped}"`)
}
