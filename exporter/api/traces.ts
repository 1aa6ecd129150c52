/**
 * GET /v1/traces and GET /v1/traces/{trace_id}: what the store knows of requests. From the
 * catalogue alone, so these routes read no Parquet.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { parseLimit, parseSince, parseTraceId } from '../tensors/selection.ts'
import { unknownTrace } from '../tensors/series-choice.ts'
import type { ServerDependencies } from './dependencies.ts'
import {
  answers,
  listQuerySchema,
  traceListSchema,
  traceParameters,
  traceSchema,
} from './schemas.ts'
import { requestView, traceView } from './views.ts'

export function traceRoutes(dependencies: ServerDependencies): FastifyPluginAsyncTypebox {
  const { catalog } = dependencies
  const now = dependencies.now ?? Date.now
  return async (app) => {
    const listSchema = {
      summary: 'Requests kept, newest first',
      tags: ['traces'],
      querystring: listQuerySchema,
      response: answers(traceListSchema),
    }
    app.get('/v1/traces', { schema: listSchema }, async (request) => {
      const { since, model, verdict, q, limit, cursor } = request.query
      const page = catalog.list({
        ...(since === undefined ? {} : { sinceMicros: parseSince(since, now()) }),
        ...(model === undefined ? {} : { model }),
        ...(verdict === undefined ? {} : { verdict }),
        ...(q === undefined ? {} : { search: q }),
        ...(limit === undefined ? {} : { limit: parseLimit(limit) }),
        ...(cursor === undefined ? {} : { cursor }),
      })
      return { traces: page.requests.map(requestView), next_cursor: page.nextCursor }
    })

    const traceRouteSchema = {
      summary: 'What the store has of a trace',
      tags: ['traces'],
      params: traceParameters,
      response: answers(traceSchema),
    }
    app.get('/v1/traces/:trace_id', { schema: traceRouteSchema }, async (request) => {
      const traceId = parseTraceId(request.params.trace_id)
      const requests = catalog.requests(traceId)
      if (requests.length === 0) throw unknownTrace(traceId)
      return traceView(traceId, requests, catalog.series({ traceId }))
    })
  }
}
