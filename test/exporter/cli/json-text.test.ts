/** JSON as commands print it. */
import { expect, test } from 'vitest'
import { jsonText } from '../../../exporter/cli/json-text.ts'

test('lists of plain values and short objects of them are on one line, the rest is indented', () => {
  const value = { a: [1, null, 'x'], b: [], c: {}, d: [{ e: 1, f: [true] }, { g: 'h"' }] }
  expect(jsonText(value)).toBe(
    [
      '{',
      '  "a": [1, null, "x"],',
      '  "b": [],',
      '  "c": {},',
      '  "d": [',
      '    {',
      '      "e": 1,',
      '      "f": [true]',
      '    },',
      '    { "g": "h\\"" }',
      '  ]',
      '}',
    ].join('\n'),
  )
})

test('whatever it writes is read back as what JSON.stringify gives', () => {
  const long = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`key${i}`, `value ${i}`]))
  const values = [null, 7, 'text', [[], [[1]], {}], { long, gone: undefined, at: new Date(0) }]
  for (const value of values) {
    expect(JSON.parse(jsonText(value))).toEqual(JSON.parse(JSON.stringify(value)))
  }
  expect(jsonText({ long })).toContain('\n    "key7": "value 7",\n')
})
