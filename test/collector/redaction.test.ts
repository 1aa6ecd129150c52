import { describe, expect, test } from 'vitest'
import type { RequestInfo } from '../../collector/records.ts'
import { createAttributeRedaction } from '../../collector/redaction.ts'
import { request } from '../exporter/tensors/rows.ts'

function redact(patterns: readonly string[], attributes: RequestInfo['attributes']) {
  return createAttributeRedaction(patterns)(request({ attributes })).attributes
}

describe('Redacted attributes', () => {
  test('keep their key and lose their value, whatever its type', () => {
    expect(redact(['user.*'], { 'user.id': 'me', 'user.age': 7, 'user.paid': true, u: 1 })).toEqual(
      {
        'user.id': 'redacted',
        'user.age': 'redacted',
        'user.paid': 'redacted',
        u: 1,
      },
    )
  })

  test('are those whose whole key fits; nothing else in a pattern is special', () => {
    const attributes = { abc: 1, 'a.c': 2, 'a(c': 3, xabc: 4, 'a\nc': 5 }
    expect(redact(['a.c'], attributes)).toEqual({ ...attributes, 'a.c': 'redacted' })
    expect(redact(['a(c'], attributes)).toEqual({ ...attributes, 'a(c': 'redacted' })
    expect(redact(['a?c'], attributes)).toEqual({
      abc: 'redacted',
      'a.c': 'redacted',
      'a(c': 'redacted',
      xabc: 4,
      'a\nc': 'redacted',
    })
    expect(redact(['*'], attributes)).toEqual(
      Object.fromEntries(Object.keys(attributes).map((key) => [key, 'redacted'])),
    )
  })

  test('leave a request without one as it is', () => {
    const own = request({ attributes: { route: '/chat' } })
    expect(createAttributeRedaction(['user.*'])(own)).toBe(own)
    expect(createAttributeRedaction([])(own)).toBe(own)
  })
})
