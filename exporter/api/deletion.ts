/**
 * DELETE /v1/traces/{trace_id}: removes a trace, or one request of it, for good.
 *
 * Without a token the API is reached from this machine alone; a page in a browser on it must not be
 * able to delete either, so the name that it was reached by has to be this machine's too.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { isLoopback } from '../config.ts'
import { httpLimits } from '../limits.ts'
import type { DeletionReport } from '../retention/delete-trace.ts'
import { parseTraceId } from '../tensors/selection.ts'
import { foreignName } from './host-name.ts'
import { answers, traceParameters } from './schemas.ts'

export type DeleteTrace = (traceId: string, requestId: string | null) => Promise<DeletionReport>

const querySchema = Type.Object(
  {
    request_id: Type.Optional(
      Type.String({
        description: 'only this request',
        minLength: 1,
        maxLength: httpLimits.parameterCharactersMax,
      }),
    ),
  },
  { additionalProperties: false },
)

const reportSchema = Type.Object(
  {
    trace_id: Type.String(),
    request_id: Type.Union([Type.String(), Type.Null()]),
    requests: Type.Integer(),
    tensors: Type.Integer(),
    bytes: Type.Integer({ description: 'payload bytes of the tensors' }),
    files_removed: Type.Integer(),
    files_rewritten: Type.Integer({
      description: 'of these, written again for the rows of others',
    }),
    resumed: Type.Boolean({ description: 'it had been begun before, and was finished now' }),
  },
  { title: 'Deletion' },
)

export function deletionRoutes(
  deleteTrace: DeleteTrace,
  token: string | null,
): FastifyPluginAsyncTypebox {
  return async (app) => {
    const schema = {
      summary: 'Delete a trace, or one request of it, for good',
      tags: ['traces'],
      params: traceParameters,
      querystring: querySchema,
      response: answers(reportSchema),
    }
    app.delete('/v1/traces/:trace_id', { schema }, async (request) => {
      if (token === null && !isLoopback(request.hostname)) throw foreignName(request)
      const traceId = parseTraceId(request.params.trace_id)
      return await deleteTrace(traceId, request.query.request_id ?? null)
    })
  }
}
