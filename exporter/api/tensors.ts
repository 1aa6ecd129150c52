/**
 * GET /v1/traces/{trace_id}/tensors: the rows of a trace; and …/tensors/{hook}/{layer}: one tensor,
 * stitched over steps, as npy, safetensors, Arrow or JSON, with ETag and Range.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import { contentTypes } from '../tensors/formats.ts'
import { rangesText } from '../tensors/ranges.ts'
import type { OpenedTensor } from '../tensors/reader.ts'
import {
  parseHeads,
  parseHook,
  parseLayer,
  parseRank,
  parseTokens,
  parseTraceId,
} from '../tensors/selection.ts'
import { unknownTrace } from '../tensors/series-choice.ts'
import { createAnswerBudget } from './answer-budget.ts'
import type { ServerDependencies } from './dependencies.ts'
import {
  answers,
  problemContent,
  tensorListQuerySchema,
  tensorListSchema,
  tensorParameters,
  tensorQuerySchema,
  traceParameters,
} from './schemas.ts'
import { sendTensor } from './tensor-answer.ts'
import { tensorRowView } from './views.ts'

export function tensorRoutes(dependencies: ServerDependencies): FastifyPluginAsyncTypebox {
  const { catalog, reader } = dependencies
  const bounds = {
    budget: createAnswerBudget(
      dependencies.answerBytesInFlightMax ?? answerLimits.bytesInFlightMax,
    ),
    stalledMillisMax: dependencies.stalledMillisMax ?? answerLimits.stalledMillisMax,
  }
  return async (app) => {
    const listSchema = {
      summary: 'Rows of a trace, with shapes and statistics',
      tags: ['tensors'],
      params: traceParameters,
      querystring: tensorListQuerySchema,
      response: answers(tensorListSchema),
    }
    app.get('/v1/traces/:trace_id/tensors', { schema: listSchema }, async (request) => {
      const traceId = parseTraceId(request.params.trace_id)
      const { hook, layer, request_id, producer } = request.query
      const rows = await reader.list({
        traceId,
        requestId: request_id ?? null,
        producer: producer ?? null,
        hook: orNull(hook, parseHook),
        layer: orNull(layer, parseLayer),
      })
      if (rows.length === 0 && catalog.requests(traceId).length === 0) throw unknownTrace(traceId)
      return { trace_id: traceId, tensors: rows.map(tensorRowView) }
    })

    const tensorSchema = {
      summary: 'One tensor, stitched over steps',
      tags: ['tensors'],
      params: tensorParameters,
      querystring: tensorQuerySchema,
      response: { ...answers(tensorAnswer), ...partialAnswers },
    }
    const path = '/v1/traces/:trace_id/tensors/:hook/:layer'
    app.get(path, { schema: tensorSchema }, async (request, reply) => {
      const { params, query } = request
      const opened = await reader.open({
        traceId: parseTraceId(params.trace_id),
        requestId: query.request_id ?? null,
        producer: query.producer ?? null,
        hook: parseHook(params.hook),
        layer: parseLayer(params.layer),
        rank: orNull(query.rank, parseRank),
        tokens: orNull(query.tokens, parseTokens),
        heads: orNull(query.heads, parseHeads),
      })
      if (query.require === 'complete') requireComplete(opened)
      return sendTensor(request, reply, opened, query.format ?? 'npy', bounds)
    })
  }
}

const binary = { schema: { type: 'string', format: 'binary' } }

const tensorAnswer = {
  description: 'The tensor; x-ring2-* headers say what it is and what is missing.',
  content: {
    [contentTypes.npy]: binary,
    [contentTypes.safetensors]: binary,
    [contentTypes.arrow]: binary,
    'application/json': { schema: { type: 'object' } },
  },
}

const partialAnswers = {
  206: { ...tensorAnswer, description: 'The bytes that Range asked for.' },
  304: { description: 'The caller has it: If-None-Match names its ETag.' },
  416: { description: 'Range begins behind the end.', content: problemContent },
}

function orNull<T>(text: string | undefined, parse: (text: string) => T): T | null {
  return text === undefined ? null : parse(text)
}

function requireComplete(opened: OpenedTensor): void {
  const { completeness, gaps } = opened.plan
  if (completeness === 'complete') return
  const missing = gaps.length === 0 ? '' : `; missing: ${rangesText(gaps)}`
  const reason = completeness === 'unknown' ? 'unknown: the request has not ended' : 'incomplete'
  throw new Ring2Error('RING2_E_INCOMPLETE', {
    expected: 'every token of the request',
    actual: reason + missing,
  })
}
