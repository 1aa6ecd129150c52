/** Tensors over a real connection: streamed, bounded, and broken off rather than wrong. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { get as httpGet, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { expect, onTestFinished, test, vi } from 'vitest'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import { get, openServer, request, row, tensorUrl } from './fixture.ts'

const MIB = 1024 * 1024
const rowBytes = MIB
const rowCount = 48
const bigTrace = 'e'.repeat(32)
const bigUrl = `/v1/traces/${bigTrace}/tensors/resid_pre/0`
const npyHeadBytes = 128

/** Bytes that tell their row, so that a part of the answer can be checked alone. */
function payloadOf(step: number): Uint8Array {
  return new Uint8Array(rowBytes).fill(step + 1)
}

async function openBig(change: Parameters<typeof openServer>[0] = {}) {
  const server = await openServer(change)
  const { store } = server
  const big = request({ traceId: bigTrace })
  const perRow = 256
  store.flush(
    Array.from({ length: rowCount }, (_, step) =>
      row({
        request: big,
        step,
        tokenStart: step * perRow,
        tokenEnd: (step + 1) * perRow,
        shape: [perRow, rowBytes / perRow / 4],
        data: payloadOf(step),
      }),
    ),
  )
  return server
}

async function listen(app: FastifyInstance): Promise<string> {
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  onTestFinished(() => app.close())
  return url
}

function ask(url: string, headers = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    httpGet(url, { headers, agent: false }, resolve).once('error', reject)
  })
}

async function bodyOf(answer: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of answer) parts.push(part)
  return Buffer.concat(parts)
}

/** Waits until the number has stayed the same for a while. */
async function settled(value: () => number): Promise<number> {
  let before = -1
  await vi.waitUntil(
    () => {
      const same = value() === before
      before = value()
      return same
    },
    { timeout: 20_000, interval: 300 },
  )
  return before
}

test('a large tensor comes whole, with its length told beforehand', async () => {
  const { app } = await openBig()
  const answer = await ask((await listen(app)) + bigUrl)
  expect(answer.headers['content-length']).toBe(String(rowCount * rowBytes + npyHeadBytes))
  const body = await bodyOf(answer)
  for (let step = 0; step < rowCount; step += 1) {
    const at = npyHeadBytes + step * rowBytes
    expect(body.subarray(at, at + rowBytes).equals(payloadOf(step))).toBe(true)
  }
})

test('a client that takes nothing is not read for, and one that goes away ends the reads', async () => {
  const { app, store } = await openBig()
  const url = await listen(app)
  const answer = await ask(url + bigUrl)
  answer.pause()
  const held = await settled(() => store.counts.bytes)
  // What lies in the buffers of this machine's sockets has been read, and little more.
  expect(held).toBeLessThan((rowCount * rowBytes) / 2)
  answer.destroy()
  const after = await settled(() => store.counts.bytes)
  expect(after - held).toBeLessThan(16 * MIB)
  expect(after).toBeLessThan((rowCount * rowBytes) / 2 + 16 * MIB)
})

test('attention, which is put together first, is not read on for a client that has gone', async () => {
  const { store } = await openServer()
  const queries = 64
  const shape = [1, queries, rowBytes / queries / 4]
  store.flush(
    Array.from({ length: rowCount }, (_, step) => {
      const tokens = { tokenStart: step * queries, tokenEnd: (step + 1) * queries }
      const of = { request: request({ traceId: bigTrace }), hook: 'pattern' }
      return row({ ...of, step, ...tokens, shape, data: payloadOf(step) })
    }),
  )
  const { counts, slow } = slowly(store.store)
  const source = createParquetSource(slow)
  const reader = createTensorReader({ catalog: store.catalog, source })
  const { app } = await openServer({ catalog: store.catalog, reader })
  const url = `${await listen(app)}/v1/traces/${bigTrace}/tensors/pattern/0`
  const asked = httpGet(url, { agent: false }).on('error', () => undefined)
  await vi.waitUntil(() => counts.bytes > 2 * rowBytes, { timeout: 20_000, interval: 5 })
  asked.destroy()
  expect(await settled(() => counts.bytes)).toBeLessThan((rowCount * rowBytes) / 2)
})

/** A store that takes its time, so that a client can go while it is read. */
function slowly(store: ObjectStore) {
  const counts = { bytes: 0 }
  const getRange: ObjectStore['getRange'] = async (key, start, length) => {
    await setTimeout(50)
    counts.bytes += length
    return store.getRange(key, start, length)
  }
  return { counts, slow: { ...store, getRange } }
}

test('a range of a large tensor costs the rows that it needs', async () => {
  const { app, store } = await openBig()
  const url = await listen(app)
  await ask(url + bigUrl, { 'if-none-match': '*' })
  const before = store.counts.bytes
  const start = npyHeadBytes + 30 * rowBytes - 10
  const answer = await ask(url + bigUrl, { range: `bytes=${start}-${start + 19}` })
  expect(answer.statusCode).toBe(206)
  const expected = [...Array(10).fill(30), ...Array(10).fill(31)]
  expect([...(await bodyOf(answer))]).toEqual(expected)
  expect(store.counts.bytes - before).toBeLessThan(3 * rowBytes)
})

test('a damaged row in the middle breaks the connection off; before it and after it is well', async () => {
  const { app, root } = await openBig()
  damage(root, payloadOf(40))
  const url = await listen(app)
  const answer = await ask(url + bigUrl)
  expect(answer.statusCode).toBe(200)
  await expect(bodyOf(answer)).rejects.toMatchObject({ code: 'ECONNRESET' })
  const good = await ask(`${url}${bigUrl}?tokens=0:10240`)
  expect((await bodyOf(good)).length).toBe(40 * rowBytes + npyHeadBytes)
  expect((await bodyOf(await ask(`${url}${bigUrl}?tokens=10496:`))).at(-1)).toBe(rowCount)
})

test('a small answer with a damaged row is an error that says nothing of the tensor', async () => {
  const { app, root } = await openBig()
  damage(root, payloadOf(40))
  for (const range of [{}, { range: 'bytes=10-19999' }]) {
    const answer = await get(app, `${bigUrl}?tokens=10240:10250`, range)
    expect([answer.statusCode, answer.json().code]).toEqual([500, 'RING2_E_CHECKSUM'])
    const told = Object.keys(answer.headers).filter((name) =>
      /^(x-ring2|etag|content-r)/.test(name),
    )
    expect(told).toEqual([])
    expect(Number(answer.headers['content-length'])).toBe(answer.rawPayload.length)
  }
})

/** Flips one bit of a payload in the file that holds it. */
function damage(root: string, payload: Uint8Array): void {
  const names = readdirSync(join(root, 'tensors'), { recursive: true }).map(String)
  for (const name of names.filter((one) => one.endsWith('.parquet'))) {
    const path = join(root, 'tensors', name)
    const bytes = readFileSync(path)
    const at = bytes.indexOf(payload)
    if (at < 0) continue
    bytes[at + 7] = (bytes[at + 7] ?? 0) ^ 1
    writeFileSync(path, bytes)
    return
  }
  throw new Error('no file has the payload')
}

test('beyond the memory for answers, one more is told to come again; then it is served', async () => {
  const { app } = await openBig({ answerBytesInFlightMax: 10 * MIB })
  const url = await listen(app)
  const first = await ask(url + bigUrl)
  first.pause()
  const refused = await get(app, bigUrl)
  expect([refused.statusCode, refused.json().code]).toEqual([503, 'RING2_E_OVERLOADED'])
  expect(refused.headers['retry-after']).toBe('2')
  expect(refused.headers).not.toHaveProperty('etag')
  // Small ones still fit, and who asks only whether it has changed takes nothing.
  expect((await get(app, tensorUrl)).statusCode).toBe(200)
  expect((await get(app, bigUrl, { 'if-none-match': '*' })).statusCode).toBe(304)
  first.destroy()
  await vi.waitFor(async () => expect((await get(app, bigUrl)).statusCode).toBe(200), 20_000)
})

test('a client that takes nothing for too long is dropped, and its memory is free again', async () => {
  const { app } = await openBig({ answerBytesInFlightMax: 10 * MIB, stalledMillisMax: 300 })
  const url = await listen(app)
  const stalled = await ask(url + bigUrl)
  stalled.on('error', () => undefined).pause()
  expect((await get(app, bigUrl)).statusCode).toBe(503)
  await vi.waitFor(async () => expect((await get(app, bigUrl)).statusCode).toBe(200), 20_000)
})

test('HEAD takes no memory from the answers that are sent', async () => {
  const { app } = await openBig({ answerBytesInFlightMax: 10 * MIB })
  for (const method of ['HEAD', 'HEAD', 'GET'] as const) {
    expect((await app.inject({ method, url: bigUrl })).statusCode).toBe(200)
  }
})

test('HEAD tells type and size of every format and reads no payload', async () => {
  const { app, store } = await openBig()
  const before = store.counts.bytes
  const answer = await app.inject({ method: 'HEAD', url: bigUrl })
  expect(answer.headers).toMatchObject({
    'content-length': String(rowCount * rowBytes + npyHeadBytes),
    'content-type': 'application/x-npy',
    'x-ring2-shape': '12288,1024',
  })
  expect(answer.rawPayload.length).toBe(0)
  expect(store.counts.bytes - before).toBeLessThan(MIB)
  for (const format of ['safetensors', 'arrow', 'json']) {
    const head = await app.inject({ method: 'HEAD', url: `${tensorUrl}?format=${format}` })
    const whole = await get(app, `${tensorUrl}?format=${format}`)
    expect(head.headers['content-length']).toBe(String(whole.rawPayload.length))
  }
})
