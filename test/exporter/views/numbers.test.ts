/** Numbers as views show them. */
import { expect, test } from 'vitest'
import { shown } from '../../../exporter/views/numbers.ts'

test('a number has five significant digits, as its text has, whatever its size and sign', () => {
  const mantissas = [1, 1.00004, 1.23456, 4.567812, 9.87654, 9.99994, 9.99996, 7.00001]
  for (const mantissa of mantissas) {
    for (let exponent = -310; exponent <= 307; exponent += 1) {
      for (const value of [mantissa, -mantissa].map((one) => Number(`${one}e${exponent}`))) {
        expect(shown(value)).toBe(Number(value.toPrecision(5)))
      }
    }
  }
})

test('whole numbers below 100,000 stay themselves, and what is not defined is null', () => {
  expect([0, -0, 1, 99_999, 123_456].map(shown)).toEqual([0, 0, 1, 99_999, 123_460])
  expect([null, undefined, Number.NaN, Number.POSITIVE_INFINITY].map(shown)).toEqual([
    ...[null, null, null, null],
  ])
})
