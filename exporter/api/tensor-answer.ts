/**
 * Sends one tensor: conditional, whole or a range of bytes, read from the store while it is sent.
 *
 * The first part is read and checked before the status is sent, so that a small answer is right or
 * an error. Where a later part cannot be read, the connection is broken off before content-length is
 * reached: no client takes the answer for whole. A client that goes away ends the reads.
 */

import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import { answerMemoryBytes, contentTypes, type TensorFormat } from '../tensors/formats.ts'
import { rangesText } from '../tensors/ranges.ts'
import type { OpenedTensor } from '../tensors/reader.ts'
import { answerOf, tensorFacts, tensorName } from '../tensors/tensor-facts.ts'
import type { AnswerBudget } from './answer-budget.ts'
import { type ByteRange, hasTag, parseByteRange } from './byte-range.ts'
import { sendProblem } from './problem.ts'

type Parts = AsyncGenerator<Uint8Array, void, undefined>

export interface AnswerBounds {
  readonly budget: AnswerBudget
  /** After how long a client is dropped that takes nothing. */
  readonly stalledMillisMax: number
}

export async function sendTensor(
  request: FastifyRequest,
  reply: FastifyReply,
  opened: OpenedTensor,
  format: TensorFormat,
  { budget, stalledMillisMax }: AnswerBounds,
): Promise<FastifyReply> {
  const tag = `"${opened.fingerprint}-${format}"`
  setTensorHeaders(reply, opened, format, tag)
  const { headers, method } = request
  if (hasTag(headers['if-none-match'], tag)) return reply.code(304).send()
  const release = budget.take(answerMemoryBytes(format, tensorFacts(opened), opened.memoryBytes))
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  let parts: Parts | null = null
  try {
    const answer = await answerOf(opened, format, gone.signal)
    const condition = [headers['if-range']].flat()[0]
    // A range is of what GET sends (RFC 9110, 14.2).
    const asked = method === 'HEAD' ? undefined : headers.range
    const range = parseByteRange(asked, condition, tag, answer.size)
    if (range === 'unsatisfiable') {
      release()
      return sendUnsatisfiable(reply, String(asked), answer.size)
    }
    const { start, end } = setRange(reply, range, answer.size)
    reply.type(contentTypes[format]).header('content-length', end - start)
    if (method === 'HEAD') {
      release()
      // Nothing at all would be told as a length of 0.
      return reply.send(Readable.from([]))
    }
    parts = answer.stream(start, end)
    const stream = await streamOf(parts, end - start, release)
    // A client that takes nothing must not hold its share of memory for ever.
    reply.raw.setTimeout(stalledMillisMax, () => reply.raw.destroy())
    return reply.send(stream)
  } catch (error) {
    await parts?.return()
    release()
    // Nobody is there to be told.
    if (gone.signal.aborted) return reply.hijack()
    throw error
  }
}

/** Waits for what is to be checked before the status is sent. */
async function streamOf(parts: Parts, bytes: number, release: () => void): Promise<Readable> {
  const first: Uint8Array[] = []
  let ready = 0
  while (ready < Math.min(bytes, answerLimits.checkedFirstBytes)) {
    const next = await parts.next()
    if (next.done === true) break
    first.push(next.value)
    ready += next.value.byteLength
  }
  // One part is in the stream and one in the socket; the next is read when the client has taken it.
  const stream = Readable.from(joined(first, parts), { objectMode: false, highWaterMark: 1 })
  stream.once('close', release)
  return stream
}

async function* joined(first: Uint8Array[], rest: Parts): Parts {
  try {
    for (let part = first.shift(); part !== undefined; part = first.shift()) yield part
    yield* rest
  } finally {
    await rest.return()
  }
}

function setRange(reply: FastifyReply, range: ByteRange | 'all', size: number): ByteRange {
  if (range === 'all') return { start: 0, end: size }
  reply.code(206).header('content-range', `bytes ${range.start}-${range.end - 1}/${size}`)
  return range
}

function sendUnsatisfiable(reply: FastifyReply, asked: string, size: number): FastifyReply {
  const error = new Ring2Error('RING2_E_QUERY', {
    expected: `a range within ${size} bytes`,
    actual: asked,
    action: 'Ask for bytes that the answer has; HEAD tells its size.',
  })
  return sendProblem(reply.header('content-range', `bytes */${size}`), error, 416)
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
