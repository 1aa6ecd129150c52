import { expect, test } from 'vitest'
import { get, openServer, request, summary } from './fixture.ts'

const callers = 'c0ffee'.padEnd(32, '0')

/** Two requests beside that of the fixture; one is known by its caller's trace too. */
async function openSearch() {
  const { app, store } = await openServer()
  const odd = request({ traceId: 'd'.repeat(32), requestId: '100%_a*b' })
  const plain = request({ traceId: 'e'.repeat(32), requestId: 'chat-7' })
  store.flush([], [summary({ request: odd }), summary({ request: plain })])
  const moved = request({ ...plain, traceId: callers, storedTraceId: plain.traceId })
  store.sink.moved(summary({ request: moved }))
  store.flush([])
  const found = async (search: string) => {
    const answer = await get(app, `/v1/traces?q=${encodeURIComponent(search)}`)
    return answer.json().traces.map((one: { request_id: string }) => one.request_id)
  }
  return { app, found }
}

test('a search finds the beginning of a trace id, also of the caller', async () => {
  const { found } = await openSearch()
  expect(await found('dd')).toEqual(['100%_a*b'])
  expect(await found('e'.repeat(32))).toEqual(['chat-7'])
  expect(await found('c0ffee')).toEqual(['chat-7'])
  expect(await found('0ffee')).toEqual([])
})

test('a search finds any part of a request id, and every character means itself', async () => {
  const { found } = await openSearch()
  expect(await found('%_')).toEqual(['100%_a*b'])
  expect(await found('a*')).toEqual(['100%_a*b'])
  expect(await found('%')).toEqual(['100%_a*b'])
  expect(await found('?')).toEqual([])
  expect(await found("chat' OR 1=1 --")).toEqual([])
  expect(await found('at-7')).toEqual(['chat-7'])
})

test('a search is paged like the list, and finds nothing where nothing fits', async () => {
  const { app, found } = await openSearch()
  expect(await found('nobody')).toEqual([])
  const first = (await get(app, '/v1/traces?q=t&limit=1')).json()
  expect(first.traces).toHaveLength(1)
  const cursor = encodeURIComponent(first.next_cursor)
  const second = (await get(app, `/v1/traces?q=t&limit=1&cursor=${cursor}`)).json()
  expect(second.traces).toHaveLength(1)
  expect(second.next_cursor).toBeNull()
  expect(second.traces[0].request_id).not.toBe(first.traces[0].request_id)
})
