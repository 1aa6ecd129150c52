/**
 * POST /otlp/v1/traces: takes spans of other processes by OTLP over HTTP, as Protocol Buffers or
 * JSON, gzip or plain, for their trace contexts. Nothing else of the spans is kept.
 *
 * Answers follow the OTLP specification, "OTLP/HTTP Response": in the encoding of the request,
 * partial success for spans that are malformed, google.rpc.Status for everything but success.
 */

import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { FastifyError, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { errorText, Ring2Error } from '../errors.ts'
import { httpLimits } from '../limits.ts'
import type { ContextBatch } from '../pipeline/messages.ts'
import { createProtobufWriter } from '../telemetry/protobuf.ts'
import { contextsOf, faultText } from '../telemetry/tap.ts'
import { readJsonSpans, readProtobufSpans, type TapSpan } from '../telemetry/tap-spans.ts'
import { sendProblem } from './problem.ts'

const PROTOBUF = 'application/x-protobuf'
const JSON_TYPE = 'application/json'
const unpack = promisify(gunzip)

/** google.rpc.Code. */
const codes = { 400: 3, 401: 16, 404: 5, 413: 11, 415: 3, 503: 14 } as const
const INTERNAL = 13

class TapError extends Error {
  readonly statusCode: keyof typeof codes

  constructor(statusCode: keyof typeof codes, message: string) {
    super(message)
    this.statusCode = statusCode
  }
}

export function tapRoutes(take: (batch: ContextBatch) => boolean): FastifyPluginAsync {
  return async (app) => {
    app.removeAllContentTypeParsers()
    const limits = { parseAs: 'buffer', bodyLimit: httpLimits.tapBodyBytesMax } as const
    app.addContentTypeParser([PROTOBUF, JSON_TYPE], limits, (_request, body, done) => {
      done(null, body)
    })
    app.setErrorHandler<FastifyError>((error, request, reply) => {
      const status = error.statusCode ?? 500
      // In no type that OTLP has, it is not from a sender of spans: a person reads this answer.
      if (error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
        return sendProblem(reply, wrongType(request), status)
      }
      if (status >= 500 && status !== 503) request.log.error({ err: error }, 'the tap failed')
      return sendStatus(request, reply, status, status === 500 ? 'a defect' : error.message)
    })
    const schema = {
      summary: 'Spans of other processes, for their trace contexts (OTLP/HTTP)',
      tags: ['telemetry'],
      consumes: [PROTOBUF, JSON_TYPE],
    }
    app.post('/otlp/v1/traces', { schema }, async (request, reply) => {
      const body = await unpacked(request)
      const spans = decode(request, body, take)
      const { contexts, faults, rejected } = contextsOf(spans)
      const known = contexts.length > 0 || rejected > 0
      if (known && !take({ contexts, faults })) {
        reply.header('retry-after', '1')
        throw new TapError(503, 'not ready to take spans')
      }
      return sendSuccess(request, reply, rejected, rejected === 0 ? '' : faultText(faults))
    })
  }
}

/** In its place when it is off, for whoever looks for spans that do not arrive. */
export const tapOff: FastifyPluginAsync = async (app) => {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, body, done) => {
    body.resume()
    done(null)
  })
  app.post('/otlp/v1/traces', { schema: { hide: true } }, (request, reply) =>
    sendStatus(request, reply, 404, 'the tap is off; telemetry.tap: true switches it on'),
  )
}

function wrongType(request: FastifyRequest): Ring2Error {
  return new Ring2Error('RING2_E_QUERY', {
    expected: `${PROTOBUF} or ${JSON_TYPE} as Content-Type`,
    actual: request.headers['content-type'] ?? 'none',
  })
}

function isJson(request: FastifyRequest): boolean {
  return request.headers['content-type']?.startsWith(JSON_TYPE) === true
}

async function unpacked(request: FastifyRequest): Promise<Uint8Array> {
  const body = request.body instanceof Uint8Array ? request.body : new Uint8Array()
  const encoding = request.headers['content-encoding'] ?? 'identity'
  if (encoding === 'identity') return body
  if (encoding !== 'gzip') throw new TapError(415, `expected gzip or no encoding, not ${encoding}`)
  try {
    return await unpack(body, { maxOutputLength: httpLimits.tapBodyBytesMax })
  } catch (error) {
    if (error instanceof RangeError) {
      throw new TapError(413, `expected at most ${httpLimits.tapBodyBytesMax} bytes when unpacked`)
    }
    throw new TapError(400, `expected a body packed by gzip: ${errorText(error)}`)
  }
}

function decode(
  request: FastifyRequest,
  body: Uint8Array,
  take: (batch: ContextBatch) => boolean,
): TapSpan[] {
  try {
    return isJson(request) ? readJsonSpans(body) : readProtobufSpans(body)
  } catch (error) {
    take({ contexts: [], faults: { spans_undecodable: 1 } })
    throw new TapError(400, `expected an ExportTraceServiceRequest: ${errorText(error)}`)
  }
}

function sendSuccess(
  request: FastifyRequest,
  reply: FastifyReply,
  rejected: number,
  message: string,
): FastifyReply {
  if (isJson(request)) {
    const partial = { rejectedSpans: String(rejected), errorMessage: message }
    return reply.type(JSON_TYPE).send(rejected === 0 ? {} : { partialSuccess: partial })
  }
  const writer = createProtobufWriter()
  if (rejected > 0) {
    const partial = writer.open(1)
    writer.varint(1, rejected)
    writer.text(2, message)
    writer.close(partial)
  }
  return reply.type(PROTOBUF).send(writer.finish())
}

function sendStatus(
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  message: string,
): FastifyReply {
  if (status === 401) reply.header('www-authenticate', 'Bearer')
  const code = codes[status as keyof typeof codes] ?? INTERNAL
  if (isJson(request)) return reply.code(status).type(JSON_TYPE).send({ code, message })
  const writer = createProtobufWriter()
  writer.varint(1, code)
  writer.text(2, message)
  return reply.code(status).type(PROTOBUF).send(writer.finish())
}
