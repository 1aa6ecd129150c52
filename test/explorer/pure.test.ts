import { describe, expect, test } from 'vitest'
import { hrefOf, parseRoute, routeOfText } from '../../explorer/src/address.ts'
import { cellColours, type Rgb, textColours } from '../../explorer/src/colour.ts'
import { commandsOf } from '../../explorer/src/commands.ts'
import { numberText, timeText } from '../../explorer/src/format.ts'
import { firstHook } from '../../explorer/src/held.ts'
import { createScale } from '../../explorer/src/scale.ts'
import { mendValues } from '../../explorer/src/wrong-parts.ts'

/** WCAG 2.2. */
function luminance(rgb: Rgb): number {
  const [red = 0, green = 0, blue = 0] = rgb.map((part) => {
    const share = part / 255
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

function contrast(one: Rgb, other: Rgb): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b)
  return (high + 0.05) / (low + 0.05)
}

/** As readers without red, green or blue cones see it (Viénot 1999; Brettel 1997 for the last). */
const seenBy: Readonly<Record<string, readonly (readonly number[])[]>> = {
  protan: [
    [0.11238, 0.88762, 0],
    [0.11238, 0.88762, 0],
    [0.00401, -0.00401, 1],
  ],
  deutan: [
    [0.29275, 0.70725, 0],
    [0.29275, 0.70725, 0],
    [-0.02234, 0.02234, 1],
  ],
  tritan: [
    [1.01277, 0.13548, -0.14826],
    [-0.01243, 0.86812, 0.14431],
    [0.07589, 0.805, 0.11911],
  ],
}

const shares = Array.from({ length: 33 }, (_, step) => step / 32)

describe('Colours', () => {
  test.each(['light', 'dark'] as const)(
    'of a %s page run evenly in luminance, also without a kind of cones',
    (theme) => {
      for (const map of [cellColours(theme), textColours(theme)]) {
        const direction = theme === 'light' ? -1 : 1
        const all = shares.map((share) => map.at(share))
        const views = [
          all,
          ...Object.values(seenBy).map((matrix) => all.map((one) => seen(one, matrix))),
        ]
        for (const view of views) {
          const steps = view
            .slice(1)
            .map((one, index) => luminance(one) - luminance(view[index] ?? one))
          expect(steps.filter((step) => step * direction <= 0)).toEqual([])
        }
      }
    },
  )

  test.each([
    ['light', [0x1c, 0x1d, 0x1f]],
    ['dark', [0xec, 0xed, 0xef]],
  ] as const)('behind text of a %s page leave it readable at every value', (theme, ink) => {
    const least = Math.min(...shares.map((share) => contrast(textColours(theme).at(share), ink)))
    expect(least).toBeGreaterThanOrEqual(4.5)
  })
})

function seen(rgb: Rgb, matrix: readonly (readonly number[])[]): Rgb {
  const linear = rgb.map((part) => (part / 255) ** 2.2)
  const [red = 0, green = 0, blue = 0] = matrix.map((row) => {
    const value = row.reduce((sum, factor, index) => sum + factor * (linear[index] ?? 0), 0)
    return Math.min(1, Math.max(0, value)) ** (1 / 2.2) * 255
  })
  return [red, green, blue]
}

test('a scale goes from values to shares and back, and stays within its ends', () => {
  for (const kind of ['linear', 'root', 'log'] as const) {
    const scale = createScale(kind, 0.5, 800)
    for (const value of [0.5, 3, 80, 800]) {
      expect(scale.value(scale.share(value))).toBeCloseTo(value, 6)
    }
    expect([scale.share(-4), scale.share(9000)]).toEqual([0, 1])
  }
  expect(createScale('log', 0, 1).kind).toBe('linear')
  expect(createScale('log', 3, 3).share(3)).toBe(0)
})

test('an address keeps every value, and nothing that it does not know', () => {
  const values = { request: 'a b/ü&<>', tab: 'norms', layer: '3', view: '0:8' }
  const href = hrefOf('/ring2', { traceId: 'ab/..', values })
  const url = new URL(href, 'http://exporter')
  expect(parseRoute('/ring2', url.pathname, url.search)).toEqual({ traceId: 'ab/..', values })
  expect(parseRoute('', '/', '?q=x&token=secret&tab=norms')).toEqual({
    traceId: null,
    values: { q: 'x' },
  })
  expect(parseRoute('', '/t/%zz', '').traceId).toBe('%zz')
})

test('ids in commands are quoted for the language they stand in', () => {
  const id = `it's "$(rm -rf /)" \\ ;--`
  const [cli, python, duckdb, curl] = commandsOf({
    origin: 'http://127.0.0.1:9464',
    store: '/my store',
    authorized: true,
    traceId: 'a'.repeat(32),
    storedTraceId: 'b'.repeat(32),
    requestId: id,
    producer: 'chat-1',
    hook: 'final_logits',
    layer: -1,
  })
  expect(cli?.text).toContain(`'--request=it'\\''s "$(rm -rf /)" \\ ;--'`)
  expect(cli?.text).not.toContain('--layer')
  expect(cli?.text).toContain("'--store=/my store'")
  expect(python?.text).toContain(`request_id=${JSON.stringify(id)},`)
  expect(python?.text).toContain('producer="chat-1",')
  expect(python?.text).toContain('token=os.environ["RING2_API_TOKEN"]')
  expect(duckdb?.what).toContain('where encoding is not raw, ring2.decode')
  expect(duckdb?.text).toContain(`request_id = 'it''s "$(rm -rf /)" \\ ;--'`)
  expect(duckdb?.text).toContain(`trace_id = '${'b'.repeat(32)}'`)
  expect(curl?.text).toContain('/tensors/final_logits/global?request_id=it%27s+%22%24%28rm')
})

test('a whole trace id in any case opens its trace, and a part of one is searched for', () => {
  const id = '0AF7651916CD43DD8448EB211C80319C'
  expect(routeOfText(id)).toEqual({ traceId: id.toLowerCase(), values: {} })
  expect(routeOfText(id.slice(1))).toEqual({ traceId: null, values: { q: id.slice(1) } })
})

test('views open on resid_pre, else on the first floats that are there', () => {
  const held = (hook: string, dtype: string, bytes = 8) => ({
    ...{ hook, dtype, bytes },
    ...{ layer: 0, token_start: 0, token_end: 2, rows: 1 },
  })
  const first = (...tensors: ReturnType<typeof held>[]) =>
    firstHook(
      { tensors },
      tensors.map(({ hook }) => hook),
    )
  const ids = held('token_ids', 'int64')
  expect(first(ids, held('pattern', 'float32'), held('resid_pre', 'bfloat16'))).toBe('resid_pre')
  expect(first(ids, held('pattern', 'float32'))).toBe('pattern')
  expect(first(held('resid_pre', 'float32', 0), ids)).toBe('token_ids')
  expect(first(held('resid_pre', 'float32', 0))).toBe('resid_pre')
  expect(first()).toBeUndefined()
})

test('numbers have separators of thousands, and times the name of their zone', () => {
  expect([25102.4, 999.96, 0.1234, 1e-5, 0].map((one) => numberText(one))).toEqual([
    '25,102',
    '1,000',
    '0.123',
    '1.00e-5',
    '0',
  ])
  expect(numberText(1234.5678, 5)).toBe('1,234.6')
  expect(timeText('2026-11-22T21:37:08.123Z')).toMatch(/^2026-11-2[123] \d\d:\d\d:08 \S+$/)
})

test('what an address names and is not there is said part by part, and left out', () => {
  const tensor = { dtype: 'float32', token_start: 0, token_end: 9, rows: 1, bytes: 8 }
  const request = {
    request_id: 'chat-1',
    producer: 'chat',
    tokens: 9,
    tensors: [
      { ...tensor, hook: 'resid_pre', layer: 3 },
      { ...tensor, hook: 'pattern', layer: 5 },
    ],
  }
  const right = {
    tab: 'norms',
    hook: 'resid_pre',
    layer: '3',
    token: '8',
    view: '0:4',
    cell: 'max',
  }
  expect(mendValues(right, request)).toEqual({ values: right, wrong: [] })
  expect(mendValues({ tab: 'nonsense', colour: 'surprisal' }, request)).toEqual({
    values: { colour: 'surprisal' },
    wrong: ['There is no view "nonsense".'],
  })
  const wrong = {
    tab: 'norms',
    hook: 'pattern',
    layer: '5',
    token: '9',
    view: '0:x',
    scale: 'root',
  }
  expect(mendValues(wrong, request)).toEqual({
    values: { tab: 'norms' },
    wrong: [
      'The stored hidden states have no hook "pattern".',
      'The stored hidden states have no layer "5".',
      'The request has no token "9".',
      'Not understood: scale "root".',
      'Not understood: view "0:x".',
    ],
  })
  expect(mendValues({ hook: 'resid_pre', layer: '5', request: 'gone' }, request)).toEqual({
    values: { hook: 'resid_pre', request: 'chat-1', producer: 'chat' },
    wrong: [
      'This trace has no request "gone": another one is shown.',
      'resid_pre has no layer "5".',
    ],
  })
  // Before a request has ended it may have any number of tokens.
  expect(mendValues({ token: '900' }, { ...request, tokens: null }).wrong).toEqual([])
})
