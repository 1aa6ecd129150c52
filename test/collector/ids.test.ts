import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  deriveSpanId,
  deriveTraceId,
  parseTraceparent,
  parseTraceRequestId,
} from '../../collector/ids.ts'

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const SPAN = 'b7ad6b7169203331'

describe('derived ids', () => {
  it('takes the first eight bytes of the SHA-256 of trace id, request id and stage', () => {
    const digest = createHash('sha256').update(`${TRACE}|chat-1|prefill`).digest('hex')
    expect(deriveSpanId(TRACE, 'chat-1', 'prefill')).toBe(digest.slice(0, 16))
  })

  it('gives each stage, request and trace an id of its own, and the same one every time', () => {
    const ids = [
      deriveSpanId(TRACE, 'chat-1', 'prefill'),
      deriveSpanId(TRACE, 'chat-1', 'decode'),
      deriveSpanId(TRACE, 'chat-2', 'prefill'),
      deriveSpanId(deriveTraceId('chat-1'), 'chat-1', 'prefill'),
    ]
    expect(new Set(ids).size).toBe(ids.length)
    expect(deriveSpanId(TRACE, 'chat-1', 'prefill')).toBe(ids[0])
  })

  it('derives a 16-byte trace id from any text, non-ASCII too', () => {
    for (const requestId of ['chat-1', '', 'anfrage-ä-漢字', 'x'.repeat(10_000)]) {
      expect(deriveTraceId(requestId)).toMatch(/^[0-9a-f]{32}$/)
      expect(deriveTraceId(requestId)).toBe(deriveTraceId(requestId))
    }
    expect(deriveTraceId('a')).not.toBe(deriveTraceId('b'))
  })
})

describe('parseTraceparent', () => {
  it('reads the example of the specification', () => {
    expect(parseTraceparent(`00-${TRACE}-${SPAN}-01`)).toEqual({
      traceId: TRACE,
      parentSpanId: SPAN,
      flags: 1,
    })
    expect(parseTraceparent(`00-${TRACE}-${SPAN}-00`)?.flags).toBe(0)
  })

  it('reads a future version as far as it knows it, and only its sampled flag', () => {
    expect(parseTraceparent(`cc-${TRACE}-${SPAN}-03`)?.flags).toBe(1)
    expect(parseTraceparent(`cc-${TRACE}-${SPAN}-01-what-the-future-brings`)).toEqual({
      traceId: TRACE,
      parentSpanId: SPAN,
      flags: 1,
    })
  })

  it.each([
    ['an empty text', ''],
    ['version ff', `ff-${TRACE}-${SPAN}-01`],
    ['upper-case digits', `00-${TRACE.toUpperCase()}-${SPAN}-01`],
    ['an all-zero trace id', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['an all-zero parent id', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['a short trace id', `00-${TRACE.slice(1)}-${SPAN}-01`],
    ['more after version 00', `00-${TRACE}-${SPAN}-01-extra`],
    ['a future version that goes on without a dash', `cc-${TRACE}-${SPAN}-01.extra`],
    ['a letter that is no digit', `00-${TRACE.replace('a', 'g')}-${SPAN}-01`],
    ['missing flags', `00-${TRACE}-${SPAN}`],
    ['a line break at the end', `00-${TRACE}-${SPAN}-01\n`],
  ])('refuses %s', (_what, text) => {
    expect(parseTraceparent(text)).toBeNull()
  })
})

describe('parseTraceRequestId', () => {
  it('reads a request id made of trace id and span id, as sampled', () => {
    expect(parseTraceRequestId(`${TRACE}-${SPAN}`)).toEqual({
      traceId: TRACE,
      parentSpanId: SPAN,
      flags: 1,
    })
  })

  it('refuses any other request id', () => {
    for (const text of ['chat-1', TRACE, `${TRACE}-${SPAN}-1`, `${'0'.repeat(32)}-${SPAN}`]) {
      expect(parseTraceRequestId(text)).toBeNull()
    }
  })
})
