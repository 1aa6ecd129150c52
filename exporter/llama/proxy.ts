/**
 * A proxy before an unmodified llama-server that gives its requests a name and their trace.
 *
 * llama-server drops `traceparent` and `X-Request-Id`, but a request may choose its slot. So the proxy
 * lends each request a slot, tells the capture library in the server whose it is, and sends the request
 * on with `id_slot`. Everything else passes through as it is. What cannot be named is served all the
 * same; the library then gives it an id of its own.
 */
import { randomUUID } from 'node:crypto'
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  request as send,
} from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { llamaProxyLimits as limits } from '../limits.ts'
import { tellLibrary } from './channel.ts'
import { createSlots, type Slots } from './slots.ts'

export interface LlamaProxyOptions {
  /** Of llama-server, without a path. */
  readonly upstream: string
  /** The socket of RING2_LLAMA_CONTROL. */
  readonly control: string
  /** Told why a request was served without its name. */
  warn(message: string): void
}

/** Paths whose requests are completions, and thus one task on one slot. */
const taskPaths = new Set([
  '/completion',
  '/completions',
  '/v1/completions',
  '/chat/completions',
  '/v1/chat/completions',
  '/infill',
])
const traceparentForm = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
const requestIdForm = /^[\x21-\x7e]{1,512}$/

type Body = Record<string, unknown>

/** Listens nowhere yet. */
export function createLlamaProxy(options: LlamaProxyOptions): Server {
  let slots: Promise<Slots> | undefined
  const knownSlots = (): Promise<Slots> => {
    slots ??= countSlots(options.upstream).then(createSlots)
    // A server that is not up yet is asked again.
    slots.catch(() => {
      slots = undefined
    })
    return slots
  }
  return createServer((incoming, answer) => {
    handle(incoming, answer, options, knownSlots).catch((error: unknown) => {
      refuse(answer, 502, `llama-server could not be asked: ${String(error)}`)
    })
  })
}

async function handle(
  incoming: IncomingMessage,
  answer: ServerResponse,
  options: LlamaProxyOptions,
  knownSlots: () => Promise<Slots>,
): Promise<void> {
  const path = new URL(incoming.url ?? '/', 'http://proxy').pathname
  const gone = new AbortController()
  answer.once('close', () => gone.abort())
  if (incoming.method !== 'POST' || !taskPaths.has(path)) {
    await forward(incoming, answer, options.upstream, incoming.headers, incoming, gone.signal)
    return
  }
  const bytes = await readBody(incoming)
  if (bytes === null) return refuse(answer, 413, `expected at most ${limits.bodyBytesMax} bytes`)
  const body = parseTask(bytes)
  if (body === null) {
    await forward(incoming, answer, options.upstream, incoming.headers, bytes, gone.signal)
    return
  }
  await onSlot(incoming, answer, body, options, await knownSlots(), gone.signal)
}

async function onSlot(
  incoming: IncomingMessage,
  answer: ServerResponse,
  body: Body,
  options: LlamaProxyOptions,
  slots: Slots,
  gone: AbortSignal,
): Promise<void> {
  const chosen = body.id_slot
  const wanted = typeof chosen === 'number' && chosen >= 0 ? chosen : undefined
  const slot = await slots.take(gone, wanted).catch(() => null)
  if (slot === null) return
  const id = headerOf(incoming.headers, 'x-request-id', requestIdForm) ?? `llama-${randomUUID()}`
  const trace = headerOf(incoming.headers, 'traceparent', traceparentForm) ?? ''
  try {
    const problem = await tellLibrary(options.control, `begin ${slot} ${id} ${trace}`.trim())
    if (problem !== null) options.warn(`request ${id} has no name in the capture: ${problem}`)
    if (!answer.headersSent) answer.setHeader('x-request-id', id)
    const bytes = Buffer.from(JSON.stringify({ ...body, id_slot: slot }))
    const headers = { ...incoming.headers, 'content-length': String(bytes.length) }
    await forward(incoming, answer, options.upstream, headers, bytes, gone)
    // A task whose client has gone may still be computing; its rows are not the next request's.
    if (!answer.writableFinished) await untilIdle(options.upstream, slot)
    if (problem === null) await tellLibrary(options.control, `end ${slot}`)
  } finally {
    slots.giveBack(slot)
  }
}

/** Sends on, and settles when the answer has been sent back or either side has gone. */
function forward(
  incoming: IncomingMessage,
  answer: ServerResponse,
  upstream: string,
  headers: IncomingHttpHeaders,
  body: Buffer | IncomingMessage,
  gone: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const target = new URL(incoming.url ?? '/', upstream)
    const { 'transfer-encoding': _, ...kept } = headers
    const outgoing = send(target, {
      method: incoming.method,
      headers: 'pipe' in body ? headers : kept,
      agent: false,
      signal: gone,
    })
    outgoing.once('response', (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(answer)
      response.once('error', () => answer.destroy())
      answer.once('close', resolve)
    })
    outgoing.once('error', (error) => {
      refuse(answer, 502, `llama-server did not answer: ${error.message}`)
      resolve()
    })
    if ('pipe' in body) body.pipe(outgoing)
    else outgoing.end(body)
  })
}

/** The body of a request that is one task; null when it is something else, or several. */
function parseTask(bytes: Buffer): Body | null {
  try {
    const body: unknown = JSON.parse(bytes.toString('utf8'))
    if (typeof body !== 'object' || body === null || Array.isArray(body)) return null
    const { n, prompt } = body as Body
    const several = Array.isArray(prompt) && prompt.some((part) => typeof part !== 'number')
    return several || (typeof n === 'number' && n > 1) ? null : (body as Body)
  } catch {
    return null
  }
}

async function readBody(incoming: IncomingMessage): Promise<Buffer | null> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of incoming) {
    size += (part as Buffer).length
    if (size > limits.bodyBytesMax) return null
    parts.push(part as Buffer)
  }
  return Buffer.concat(parts)
}

function headerOf(headers: IncomingHttpHeaders, name: string, form: RegExp): string | null {
  const value = headers[name]
  return typeof value === 'string' && form.test(value) ? value : null
}

async function countSlots(upstream: string): Promise<number> {
  const answer = await fetch(new URL('/props', upstream))
  const { total_slots: count } = (await answer.json()) as { total_slots?: unknown }
  if (typeof count === 'number' && count >= 1 && count <= limits.slotsMax) return count
  throw new Error(`expected /props to say total_slots, from 1 to ${limits.slotsMax}; got ${count}`)
}

/** Until the slot computes no more, or nobody can say. */
async function untilIdle(upstream: string, slot: number): Promise<void> {
  const deadline = Date.now() + limits.idleWaitMillis
  while (Date.now() < deadline) {
    const answer = await fetch(new URL('/slots', upstream)).catch(() => null)
    if (answer?.ok !== true) return
    const slots = (await answer.json()) as readonly { id: number; is_processing: boolean }[]
    if (slots.find(({ id }) => id === slot)?.is_processing !== true) return
    await sleep(limits.idleLookMillis)
  }
}

function refuse(answer: ServerResponse, status: number, message: string): void {
  if (answer.headersSent) {
    answer.destroy()
    return
  }
  const error = { code: status, message, type: 'proxy_error' }
  answer.writeHead(status, { 'content-type': 'application/json' })
  answer.end(JSON.stringify({ error }))
}
