/**
 * A proxy before an unmodified llama-server that gives its requests a name and their trace.
 *
 * llama-server drops `traceparent` and `X-Request-Id`, but a request may choose its slot. So the proxy
 * lends each request a slot, tells the capture library in the server whose it is, and sends the request
 * on with `id_slot`. What may compute and cannot be put on one slot runs alone, on all slots, without
 * a name: no unnamed computation overlaps a named one. What computes nothing passes through. Nobody
 * but the upstream is spoken to.
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
import { urlToHttpOptions } from 'node:url'
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
/**
 * Paths that compute nothing. Compared as they were sent: an encoded one is not known, and what is
 * not known may compute.
 */
const idlePaths =
  /^\/(?:tokenize|detokenize|apply-template|props|lora-adapters|v1\/messages\/count_tokens|slots\/\d+)$/
const targetForm = /^\/(?!\/)/
// What the trace context specification calls invalid is no trace: a request keeps its id without one.
const traceparentForm =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const requestIdForm = /^[\x21-\x7e]{1,512}$/

interface Task {
  /** The slot that the body names; else the proxy chooses. */
  readonly wanted: number | undefined
  readonly bytes: Buffer
}

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
  const target = incoming.url ?? ''
  if (!targetForm.test(target)) {
    refuse(answer, 400, 'expected a target that begins with one /, as in POST /completion')
    return
  }
  const path = target.split('?', 1)[0] ?? ''
  const gone = new AbortController()
  answer.once('close', () => gone.abort())
  if (incoming.method !== 'POST' || idlePaths.test(path)) {
    await forward(incoming, answer, options.upstream, incoming.headers, incoming, gone.signal)
    return
  }
  const bytes = await readBody(incoming)
  if (bytes === null) {
    refuse(answer, 413, `expected at most ${limits.bodyBytesMax} bytes`)
    incoming.resume()
    return
  }
  const slots = await knownSlots()
  const task = taskPaths.has(path) ? parseTask(bytes, slots.count) : null
  if (task === null) await alone(incoming, answer, bytes, options, slots, gone.signal)
  else await onSlot(incoming, answer, task, options, slots, gone.signal)
}

async function onSlot(
  incoming: IncomingMessage,
  answer: ServerResponse,
  task: Task,
  options: LlamaProxyOptions,
  slots: Slots,
  gone: AbortSignal,
): Promise<void> {
  const slot = await slots.take(gone, task.wanted).catch(() => null)
  if (slot === null) return
  const id = headerOf(incoming.headers, 'x-request-id', requestIdForm) ?? `llama-${randomUUID()}`
  const trace = headerOf(incoming.headers, 'traceparent', traceparentForm) ?? ''
  try {
    const problem = await tellLibrary(options.control, `begin ${slot} ${id} ${trace}`.trim())
    if (problem !== null) options.warn(`request ${id} has no name in the capture: ${problem}`)
    if (!answer.headersSent) answer.setHeader('x-request-id', id)
    const bytes = task.wanted === undefined ? withSlot(task.bytes, slot) : task.bytes
    const headers = { ...incoming.headers, 'content-length': String(bytes.length) }
    const whole = await forward(incoming, answer, options.upstream, headers, bytes, gone)
    // A task whose client has gone may still be computing; its rows are not the next request's.
    if (!whole) await untilIdle(options.upstream, ({ id }) => id === slot)
    // Words that were answered too late may have been taken all the same.
    const left = await tellLibrary(options.control, `end ${slot}`)
    if (problem === null && left !== null) options.warn(`request ${id} was not ended: ${left}`)
  } finally {
    slots.giveBack(slot)
  }
}

/** Lets a request compute while no other does: the server may put it on any slot. */
async function alone(
  incoming: IncomingMessage,
  answer: ServerResponse,
  bytes: Buffer,
  options: LlamaProxyOptions,
  slots: Slots,
  gone: AbortSignal,
): Promise<void> {
  const taken = await slots.takeAll(gone).then(
    () => true,
    () => false,
  )
  if (!taken) return
  try {
    const headers = { ...incoming.headers, 'content-length': String(bytes.length) }
    await forward(incoming, answer, options.upstream, headers, bytes, gone)
    await untilIdle(options.upstream, () => true)
  } finally {
    slots.giveBackAll()
  }
}

/** Sends on, and settles when the answer has been sent back (true) or either side has gone. */
function forward(
  incoming: IncomingMessage,
  answer: ServerResponse,
  upstream: string,
  headers: IncomingHttpHeaders,
  body: Buffer | IncomingMessage,
  gone: AbortSignal,
): Promise<boolean> {
  return new Promise((resolve) => {
    const { 'transfer-encoding': _, ...kept } = headers
    const outgoing = send({
      ...urlToHttpOptions(new URL(upstream)),
      path: incoming.url,
      method: incoming.method,
      headers: 'pipe' in body ? headers : kept,
      agent: false,
      signal: gone,
    })
    outgoing.once('response', (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(answer)
      response.once('error', () => answer.destroy())
      answer.once('close', () => resolve(response.complete && answer.writableFinished))
    })
    outgoing.once('error', (error) => {
      refuse(answer, 502, `llama-server did not answer: ${error.message}`)
      resolve(false)
    })
    if ('pipe' in body) body.pipe(outgoing)
    else outgoing.end(body)
  })
}

/** A body that is one task for one slot; null when it is something else, or several. */
function parseTask(bytes: Buffer, slotCount: number): Task | null {
  let body: unknown
  try {
    body = JSON.parse(bytes.toString('utf8'))
  } catch {
    return null
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return null
  const { n, n_cmpl: completions, prompt, id_slot: wanted } = body as Record<string, unknown>
  if (Object.keys(body).length === 0) return null
  if (![n, completions].every((several) => (several ?? 1) === 1)) return null
  if (Array.isArray(prompt) && prompt.some((part) => typeof part !== 'number')) return null
  if (wanted === undefined) return { wanted, bytes }
  if (typeof wanted !== 'number' || !Number.isInteger(wanted)) return null
  return wanted >= 0 && wanted < slotCount ? { wanted, bytes } : null
}

/** The same bytes with a slot: written anew, large integers and the order of keys could change. */
function withSlot(bytes: Buffer, slot: number): Buffer {
  const inside = bytes.indexOf('{') + 1
  const words = Buffer.from(`"id_slot":${slot},`)
  return Buffer.concat([bytes.subarray(0, inside), words, bytes.subarray(inside)])
}

/** Null when it is too long; the connection then still lives, for the answer. */
async function readBody(incoming: IncomingMessage): Promise<Buffer | null> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of incoming.iterator({ destroyOnReturn: false })) {
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

interface SlotState {
  readonly id: number
  readonly is_processing: boolean
}

/** Until these slots compute no more, or nobody can say. */
async function untilIdle(upstream: string, of: (slot: SlotState) => boolean): Promise<void> {
  for (;;) {
    const answer = await fetch(new URL('/slots', upstream)).catch(() => null)
    if (answer?.ok !== true) return
    const slots = (await answer.json()) as readonly SlotState[]
    if (!slots.some((slot) => of(slot) && slot.is_processing)) return
    await sleep(limits.idleLookMillis, undefined, { ref: false })
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
