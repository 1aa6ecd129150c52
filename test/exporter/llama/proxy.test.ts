/**
 * The proxy before a llama-server, against an upstream that only notes what it is sent and a socket
 * that takes every word: where requests go, on which slots, with which bytes.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type RequestListener, request, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createSocket, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { llamaProxyLimits } from '../../../exporter/limits.ts'
import { createLlamaProxy } from '../../../exporter/llama/proxy.ts'

interface Seen {
  readonly path: string
  readonly body: string
  readonly answer: ServerResponse
}

let folder: string
let open: Server[]
let seen: Seen[]
let words: string[]
let hold: boolean
let port: number

async function listen(server: Server, at: number | string): Promise<number> {
  open.push(server)
  await new Promise<void>((resolve) => server.listen(at, resolve))
  return typeof at === 'string' ? 0 : (server.address() as AddressInfo).port
}

const upstream: RequestListener = async (incoming, answer) => {
  const path = incoming.url ?? ''
  if (path === '/props' && incoming.method === 'GET') return answer.end('{"total_slots":2}')
  if (path === '/slots') return answer.end('[]')
  const parts: Buffer[] = []
  for await (const part of incoming) parts.push(part as Buffer)
  seen.push({ path, body: Buffer.concat(parts).toString('latin1'), answer })
  if (!hold) answer.end('done')
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'llama-proxy-'))
  open = []
  seen = []
  words = []
  hold = false
  const control = join(folder, 'control')
  const library = createSocket((connection) => {
    connection.on('error', () => undefined)
    connection.on('data', (bytes) => {
      words.push(bytes.toString().trim())
      connection.write('ok\n')
    })
  })
  await listen(library, control)
  const server = `http://127.0.0.1:${await listen(createServer(upstream), 0)}`
  port = await listen(createLlamaProxy({ upstream: server, control, warn: () => undefined }), 0)
})

afterEach(async () => {
  for (const { answer } of seen) answer.end()
  for (const server of open) server.close()
  rmSync(folder, { recursive: true })
})

/** The status; the target is sent as it is. */
function post(path: string, body: string | Buffer, headers = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ port, path, method: 'POST', headers, agent: false }, (answer) => {
      answer.resume()
      answer.once('end', () => resolve(answer.statusCode ?? 0))
    })
    outgoing.once('error', reject)
    outgoing.end(body)
  })
}

test('A target that names another host is refused and sent to nobody', async () => {
  let reached = 0
  const other = await listen(
    createServer((_, answer) => {
      reached += 1
      answer.end()
    }),
    0,
  )
  for (const target of [
    `http://127.0.0.1:${other}/tokenize`,
    `//127.0.0.1:${other}/tokenize`,
    '*',
  ]) {
    expect(await post(target, '{}')).toBe(400)
  }
  expect(reached).toBe(0)
  expect(seen).toEqual([])
})

test('A body keeps its bytes but for the slot, and one that is no object is sent as it is', async () => {
  const kept = ' {"seed":12345678901234567890,"b":1,"a":1.0,"prompt":"\xff"}'
  await post('/completion?x=1', Buffer.from(kept, 'latin1'))
  await post('/completion', '[1]')
  await post('/completion', '{}')
  const named = kept.replace('{', '{"id_slot":0,')
  expect(seen.map(({ path, body }) => [path, body])).toEqual([
    ['/completion?x=1', named],
    ['/completion', '[1]'],
    ['/completion', '{}'],
  ])
})

test.each([
  ['/%63ompletion', '{"prompt":"a"}'],
  ['/v1/messages', '{"messages":[]}'],
  ['/v1/responses', '{"input":"a"}'],
  ['/completion', '{"prompt":["a","b"]}'],
  ['/v1/chat/completions', '{"messages":[],"n":2}'],
  ['/completion', '{"prompt":"a","n_cmpl":2}'],
  ['/completion', '{"prompt":"a","id_slot":2}'],
  ['/completion', '{"prompt":"a","id_slot":0.5}'],
  ['/completion', '{"prompt":"a","id_slot":"0"}'],
])('POST %s with %s computes only while nothing named does', async (path, body) => {
  hold = true
  const first = post('/completion', '{"prompt":"first"}')
  await vi.waitFor(() => expect(seen).toHaveLength(1))
  const unnamed = post(path, body)
  const quick = post('/tokenize', '{}')
  await vi.waitFor(() => expect(seen).toHaveLength(2))
  const last = post('/completion', '{"prompt":"last"}')
  expect(seen[1]?.path).toBe('/tokenize')
  seen[1]?.answer.end()
  await quick
  seen[0]?.answer.end()
  await first
  await vi.waitFor(() => expect(seen).toHaveLength(3))
  expect(seen[2]).toMatchObject({ path, body })
  expect(words.map((line) => line.split(' ')[0])).toEqual(['begin', 'end'])
  seen[2]?.answer.end()
  await unnamed
  await vi.waitFor(() => expect(seen).toHaveLength(4))
  expect(seen[3]?.body).toContain('"last"')
  seen[3]?.answer.end()
  expect(await last).toBe(200)
})

test('A traceparent that is not valid costs a request its trace and not its id', async () => {
  const valid = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
  const ones = [`00-${'0'.repeat(32)}-${'b'.repeat(16)}-01`, valid.replace('00', 'ff'), valid]
  for (const traceparent of ones) {
    await post('/completion', '{"id_slot":1}', { traceparent, 'x-request-id': 'mine' })
  }
  await vi.waitFor(() => expect(words).toHaveLength(6))
  expect(words.filter((line) => line.startsWith('begin'))).toEqual([
    'begin 1 mine',
    'begin 1 mine',
    `begin 1 mine ${valid}`,
  ])
})

test('A body that is too long is answered with 413', async () => {
  expect(await post('/completion', Buffer.alloc(llamaProxyLimits.bodyBytesMax + 1))).toBe(413)
  expect(seen).toEqual([])
})
