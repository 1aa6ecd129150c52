/**
 * What the explorer draws: tokens with what the model's distributions said of them, alternatives,
 * norms by layer and token, and tiles of attention. JSON with ETag; computed by views/.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import { Ring2Error } from '../errors.ts'
import { viewLimits } from '../limits.ts'
import { parseHook, parseTokens, parseTraceId, type TokenRange } from '../tensors/selection.ts'
import type { ScopeQuery } from '../views/scope.ts'
import { createViews, type PreparedView } from '../views/views.ts'
import { hasTag } from './byte-range.ts'
import type { ServerDependencies } from './dependencies.ts'
import {
  alternativesQuerySchema,
  alternativesSchema,
  normsQuerySchema,
  normsSchema,
  patternParameters,
  patternQuerySchema,
  patternSchema,
  tokenParameters,
  tokensQuerySchema,
  tokensSchema,
} from './explorer-schemas.ts'
import { answers, traceParameters } from './schemas.ts'

export function explorerRoutes(dependencies: ServerDependencies): FastifyPluginAsyncTypebox {
  const views = createViews(dependencies)
  return async (app) => {
    const tokensRoute = {
      summary: 'Tokens of a request, with entropy, surprisal and confidence',
      tags: ['explorer'],
      params: traceParameters,
      querystring: tokensQuerySchema,
      response: answers(tokensSchema),
    }
    app.get('/v1/traces/:trace_id/tokens', { schema: tokensRoute }, async (request, reply) => {
      const { params, query, headers } = request
      const view = views.tokens(scopeOf(params.trace_id, query), {
        start: parseCount(query.start, 'start', 0, 0, POSITION_MAX),
        limit: parseCount(query.limit, 'limit', viewLimits.tokensDefault, 1, viewLimits.tokensMax),
      })
      return await sendView(reply, headers, params.trace_id, view)
    })

    const alternativesRoute = {
      summary: 'The most probable tokens at a position',
      tags: ['explorer'],
      params: tokenParameters,
      querystring: alternativesQuerySchema,
      response: answers(alternativesSchema),
    }
    const alternativesPath = '/v1/traces/:trace_id/tokens/:position/alternatives'
    app.get(alternativesPath, { schema: alternativesRoute }, async (request, reply) => {
      const { params, query, headers } = request
      const { alternativesDefault, alternativesMax } = viewLimits
      const view = views.alternatives(scopeOf(params.trace_id, query), {
        position: parseCount(params.position, 'position', 0, 0, POSITION_MAX),
        count: parseCount(query.k, 'k', alternativesDefault, 1, alternativesMax),
      })
      return await sendView(reply, headers, params.trace_id, view)
    })

    const normsRoute = {
      summary: 'L2 norms by layer and token',
      tags: ['explorer'],
      params: traceParameters,
      querystring: normsQuerySchema,
      response: answers(normsSchema),
    }
    app.get('/v1/traces/:trace_id/views/norms', { schema: normsRoute }, async (request, reply) => {
      const { params, query, headers } = request
      const { columnsDefault, columnsMax } = viewLimits
      const view = views.norms(scopeOf(params.trace_id, query), {
        hook: parseHook(query.hook ?? 'resid_pre'),
        tokens: rangeOf(query.tokens),
        columns: parseCount(query.columns, 'columns', columnsDefault, 1, columnsMax),
      })
      return await sendView(reply, headers, params.trace_id, view)
    })

    const patternRoute = {
      summary: 'A tile of the attention of one layer',
      tags: ['explorer'],
      params: patternParameters,
      querystring: patternQuerySchema,
      response: answers(patternSchema),
    }
    const patternPath = '/v1/traces/:trace_id/views/pattern/:layer'
    app.get(patternPath, { schema: patternRoute }, async (request, reply) => {
      const { params, query, headers } = request
      const view = views.pattern(scopeOf(params.trace_id, query), {
        layer: parseCount(params.layer, 'layer', 0, 0, LAYER_MAX),
        head: parseHead(query.head),
        queries: rangeOf(query.queries),
        keys: rangeOf(query.keys),
        size: parseCount(query.size, 'size', viewLimits.tileDefault, 1, viewLimits.tileMax),
      })
      return await sendView(reply, headers, params.trace_id, view)
    })
  }
}

const POSITION_MAX = 2 ** 31 - 1
const LAYER_MAX = 99_999
const HEAD_MAX = 4095

interface ScopeParameters {
  readonly request_id?: string
  readonly producer?: string
}

function scopeOf(traceId: string, query: ScopeParameters): ScopeQuery {
  return {
    traceId: parseTraceId(traceId),
    requestId: query.request_id ?? null,
    producer: query.producer ?? null,
  }
}

function rangeOf(text: string | undefined): TokenRange | null {
  return text === undefined ? null : parseTokens(text)
}

function parseHead(text: string | undefined): number | 'mean' {
  if (text === undefined || text === 'mean') return 'mean'
  return parseCount(text, 'head', 0, 0, HEAD_MAX)
}

function parseCount(
  text: string | undefined,
  name: string,
  fallback: number,
  least: number,
  most: number,
): number {
  if (text === undefined) return fallback
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (value >= least && value <= most) return value
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `${name} from ${least} to ${most}`,
    actual: JSON.stringify(text.slice(0, 80)),
  })
}

async function sendView(
  reply: FastifyReply,
  headers: { readonly 'if-none-match'?: string | undefined },
  traceId: string,
  view: PreparedView<object>,
): Promise<FastifyReply> {
  const tag = `"${view.fingerprint}"`
  reply.headers({ etag: tag, 'cache-control': 'private, no-cache' })
  if (hasTag(headers['if-none-match'], tag)) return reply.code(304).send()
  const facts = { trace_id: traceId, request_id: view.requestId, producer: view.producer }
  const answer = { ...facts, ...(await view.compute()) }
  // As text: by the schema, each of up to 262,144 cells would be asked which of its types it is.
  return reply.type('application/json; charset=utf-8').send(JSON.stringify(answer))
}
