import { describe, expect, it } from 'vitest'
import {
  createProtobufReader,
  createProtobufWriter,
  WIRE,
} from '../../../exporter/telemetry/protobuf.ts'

/** Bytes in hexadecimal, as the encoding's documentation writes them. */
function written(write: (writer: ReturnType<typeof createProtobufWriter>) => void): string {
  const writer = createProtobufWriter(16)
  write(writer)
  return writer.finish().toString('hex')
}

describe('the writer', () => {
  it('writes the examples of the documentation byte for byte', () => {
    expect(written((writer) => writer.varint(1, 150))).toBe('089601')
    expect(written((writer) => writer.text(2, 'testing'))).toBe('120774657374696e67')
    const nested = written((writer) => {
      const start = writer.open(3)
      writer.varint(1, 150)
      writer.close(start)
    })
    expect(nested).toBe('1a03089601')
    expect(written((writer) => writer.packed(6, [3, 270, 86942]))).toBe('3206038e029ea705')
  })

  it.each([
    [0, '00'],
    [-1, '01'],
    [1, '02'],
    [-2, '03'],
    [0x7fffffff, 'feffffff0f'],
    [-0x80000000, 'ffffffff0f'],
  ])('writes %i as sint32 %s', (value, hex) => {
    expect(written((writer) => writer.sint32(1, value))).toBe(`08${hex}`)
  })

  it.each([0, 1, 127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 42, 2 ** 53 - 1])(
    'writes %i in every whole form exactly',
    (value) => {
      const writer = createProtobufWriter()
      writer.varint(1, value)
      writer.int64(2, value)
      writer.int64(3, -value)
      writer.fixed64(4, value)
      writer.sfixed64(5, -value)
      writer.packed(6, [value, 0, value])
      const reader = createProtobufReader(writer.finish())
      const next = (field: number) => {
        expect(reader.next()).toBe(true)
        expect(reader.field).toBe(field)
        return reader
      }
      expect(next(1).int64()).toBe(value)
      expect(next(2).int64()).toBe(value)
      // The form has no negative zero.
      expect(next(3).int64()).toBe(0 - value)
      expect(next(4).content().readBigUInt64LE()).toBe(BigInt(value))
      expect(next(5).content().readBigInt64LE()).toBe(-BigInt(value))
      const packed = next(6).content()
      expect(packed.length % 2).toBe(1)
      expect(reader.next()).toBe(false)
    },
  )

  it('multiplies fixed64 exactly beyond 2^53', () => {
    for (const micros of [1_795_305_600_000_123, 1, 0, 2 ** 53 - 1]) {
      const writer = createProtobufWriter()
      writer.fixed64(1, micros, 1000)
      const reader = createProtobufReader(writer.finish())
      reader.next()
      expect(reader.content().readBigUInt64LE()).toBe(BigInt(micros) * 1000n)
    }
  })

  it.each([
    ['varint', [Number.NaN, Number.POSITIVE_INFINITY, 0.5, -1, 2 ** 53]],
    ['int64', [Number.NaN, Number.NEGATIVE_INFINITY, 0.5, 2 ** 53, -(2 ** 53)]],
    ['sint32', [Number.NaN, Number.POSITIVE_INFINITY, 0.5, 2 ** 31, -(2 ** 31) - 1]],
    ['fixed64', [Number.NaN, Number.POSITIVE_INFINITY, 0.5, -1, 2 ** 53]],
    ['sfixed64', [Number.NaN, Number.NEGATIVE_INFINITY, 0.5, 2 ** 53]],
    ['fixed32', [Number.NaN, Number.POSITIVE_INFINITY, 0.5, -1, 2 ** 32]],
  ] as const)('throws on numbers that %s does not hold, and writes nothing', (form, values) => {
    for (const value of values) {
      const writer = createProtobufWriter()
      expect(() => writer[form](1, value), String(value)).toThrow(RangeError)
      expect(writer.length).toBe(0)
    }
    expect(() => createProtobufWriter().packed(1, [1, Number.POSITIVE_INFINITY])).toThrow(
      RangeError,
    )
  })

  it('throws on a product beyond 64 bits, and takes the last one within', () => {
    const micros = Math.floor(Number(2n ** 64n / 2_000_000n))
    const writer = createProtobufWriter()
    writer.fixed64(1, micros, 2_000_000)
    const reader = createProtobufReader(writer.finish())
    reader.next()
    expect(reader.content().readBigUInt64LE()).toBe(BigInt(micros) * 2_000_000n)
    expect(() => createProtobufWriter().fixed64(1, micros + 1, 2_000_000)).toThrow(RangeError)
  })

  it('writes every double, and a text with half a surrogate pair as UTF-8', () => {
    for (const value of [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e308]) {
      const writer = createProtobufWriter()
      writer.double(1, value)
      const reader = createProtobufReader(writer.finish())
      reader.next()
      expect(reader.content().readDoubleLE()).toBe(value)
    }
    expect(written((writer) => writer.text(1, 'a\ud800b'))).toBe('0a0561efbfbd62')
  })

  it('puts the length before a message of any size, at any depth', () => {
    for (const size of [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000]) {
      const writer = createProtobufWriter(16)
      const outer = writer.open(1)
      const inner = writer.open(2)
      writer.text(3, 'ä'.repeat(size / 2))
      writer.close(inner)
      writer.varint(4, 7)
      writer.close(outer)
      const message = createProtobufReader(writer.finish())
      expect(message.next()).toBe(true)
      const content = createProtobufReader(message.content())
      expect(content.next()).toBe(true)
      const text = createProtobufReader(content.content())
      expect(text.next()).toBe(true)
      expect(text.text()).toBe('ä'.repeat(size / 2))
      expect(content.next()).toBe(true)
      expect(content.int64()).toBe(7)
      expect([content.next(), message.next()]).toEqual([false, false])
    }
  })

  it('takes back what was written since', () => {
    const writer = createProtobufWriter()
    writer.varint(1, 150)
    const { length } = writer
    writer.text(2, 'never')
    writer.truncate(length)
    expect(writer.finish().toString('hex')).toBe('089601')
  })
})

describe('the reader', () => {
  it('gives each field whole, and its content', () => {
    const reader = createProtobufReader(Buffer.from('0896011d01020304120161', 'hex'))
    const fields = []
    while (reader.next()) {
      const { field, wire } = reader
      fields.push([field, wire, reader.whole().toString('hex'), reader.content().toString('hex')])
    }
    expect(fields).toEqual([
      [1, WIRE.varint, '089601', '9601'],
      [3, WIRE.fixed32, '1d01020304', '01020304'],
      [2, WIRE.bytes, '120161', '61'],
    ])
  })

  it.each([
    ['a varint without an end', 'ffffff'],
    ['a varint that is too long', '08ffffffffffffffffffff01'],
    ['a length beyond the end', '0ac801'],
    ['a fixed64 beyond the end', '0901020304'],
    ['a wire type that there is not', '0f'],
    ['a group', '0b'],
  ])('throws on %s', (_what, hex) => {
    const reader = createProtobufReader(Buffer.from(hex, 'hex'))
    expect(() => {
      while (reader.next());
    }).toThrow(RangeError)
  })
})
