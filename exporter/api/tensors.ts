/**
 * GET /v1/traces/{trace_id}/tensors: the rows of a trace; and …/tensors/{hook}/{layer}: one tensor,
 * stitched over steps, as npy, safetensors or JSON, with ETag and Range.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import { Ring2Error } from '../errors.ts'
import { contentTypes, encodeTensor, type TensorFormat } from '../tensors/formats.ts'
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
import { tensorFacts, tensorName } from '../tensors/tensor-facts.ts'
import { hasTag, parseByteRange } from './byte-range.ts'
import type { ServerDependencies } from './dependencies.ts'
import { sendProblem } from './problem.ts'
import {
  answers,
  tensorListQuerySchema,
  tensorListSchema,
  tensorParameters,
  tensorQuerySchema,
  traceParameters,
} from './schemas.ts'
import { tensorRowView } from './views.ts'

export function tensorRoutes(dependencies: ServerDependencies): FastifyPluginAsyncTypebox {
  const { catalog, reader } = dependencies
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
      response: answers(tensorAnswer),
    }
    const path = '/v1/traces/:trace_id/tensors/:hook/:layer'
    app.get(path, { schema: tensorSchema }, async (request, reply) => {
      const { params, query, headers } = request
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
      return sendTensor(reply, headers, opened, query.format ?? 'npy')
    })
  }
}

const binary = { schema: { type: 'string', format: 'binary' } }

const tensorAnswer = {
  description: 'The tensor; x-ring2-* headers say what it is and what is missing.',
  content: {
    'application/x-npy': binary,
    'application/vnd.safetensors': binary,
    'application/json': { schema: { type: 'object' } },
  },
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

interface ConditionalHeaders {
  readonly 'if-none-match'?: string | undefined
  readonly range?: string | undefined
  readonly 'if-range'?: string | string[] | undefined
}

async function sendTensor(
  reply: FastifyReply,
  headers: ConditionalHeaders,
  opened: OpenedTensor,
  format: TensorFormat,
): Promise<FastifyReply> {
  const tag = `"${opened.fingerprint}-${format}"`
  setTensorHeaders(reply, opened, format, tag)
  if (hasTag(headers['if-none-match'], tag)) return reply.code(304).send()
  const { plan } = opened
  const value = { dtype: plan.dtype, shape: plan.shape, data: await opened.read() }
  const body = encodeTensor(format, value, tensorName(opened), tensorFacts(opened))
  reply.type(contentTypes[format])
  const condition = [headers['if-range']].flat()[0]
  const range = parseByteRange(headers.range, condition, tag, body.length)
  if (range === 'all') return reply.send(body)
  if (range === 'unsatisfiable') {
    const error = new Ring2Error('RING2_E_QUERY', {
      expected: `a range within ${body.length} bytes`,
      actual: String(headers.range),
    })
    return sendProblem(reply.header('content-range', `bytes */${body.length}`), error, 416)
  }
  return reply
    .code(206)
    .header('content-range', `bytes ${range.start}-${range.end - 1}/${body.length}`)
    .send(body.subarray(range.start, range.end))
}

function setTensorHeaders(
  reply: FastifyReply,
  opened: OpenedTensor,
  format: TensorFormat,
  tag: string,
): void {
  const { plan } = opened
  reply.headers({
    etag: tag,
    'cache-control': 'private, no-cache',
    'accept-ranges': 'bytes',
    'content-disposition': `attachment; filename="${tensorName(opened)}.${format}"`,
    'x-ring2-dtype': plan.dtype.name,
    'x-ring2-shape': plan.shape.join(','),
    'x-ring2-tokens': rangesText(plan.tokens),
    'x-ring2-completeness': plan.completeness,
    // Ids come from outside and may hold any character; a header may not.
    'x-ring2-request-id': encodeURIComponent(opened.requestId),
  })
  if (plan.gaps.length > 0) reply.header('x-ring2-gaps', rangesText(plan.gaps))
}
