/**
 * Makes chosen attributes of spans doubles in a serialized ExportTraceServiceRequest.
 *
 * JavaScript has one kind of number, so the serializer writes every whole one as an integer, and a
 * series of statistics arrives as a mixture. This rewrites the wire form and nothing else: fields
 * that are not on the way to a chosen attribute are copied as they are, unknown ones included.
 *
 * Field numbers: opentelemetry-proto 1.x, trace.proto and common.proto; wire form: Protocol
 * Buffers, "Encoding".
 */

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

const RESOURCE_SPANS = 1
const SCOPE_SPANS = 2
const SPANS = 2
const SPAN_ATTRIBUTES = 9
const KEY = 1
const VALUE = 2
const INT_VALUE = 3
const DOUBLE_VALUE = 4
const ARRAY_VALUE = 5
const ARRAY_VALUES = 1

const DOUBLE_FIELD_BYTES = 9

interface Field {
  readonly number: number
  /** The value of a varint. */
  readonly varint: bigint
  /** The bytes of the value, without its tag and length. */
  readonly content: Buffer
  /** The field as it stands, its tag included. */
  readonly whole: Buffer
}

/**
 * @param request a serialized ExportTraceServiceRequest.
 * @param isDouble whether the span attribute of this name is a double, or an array of doubles.
 * @returns the same request, in which those attributes have no integer.
 * @throws RangeError when the bytes are no Protocol Buffers message.
 */
export function withDoubles(request: Uint8Array, isDouble: (name: string) => boolean): Buffer {
  const attribute = (bytes: Buffer): Buffer => {
    const name = fieldsOf(bytes)
      .find(({ number }) => number === KEY)
      ?.content.toString('utf8')
    return name !== undefined && isDouble(name) ? inside(VALUE, doubleValue)(bytes) : bytes
  }
  const span = inside(SPAN_ATTRIBUTES, attribute)
  const resourceSpans = inside(SCOPE_SPANS, inside(SPANS, span))
  const { buffer, byteOffset, byteLength } = request
  return inside(RESOURCE_SPANS, resourceSpans)(Buffer.from(buffer, byteOffset, byteLength))
}

/** An AnyValue whose integers, those of its array included, are doubles. */
function doubleValue(bytes: Buffer): Buffer {
  const array = inside(ARRAY_VALUES, doubleValue)
  const parts = fieldsOf(bytes).map((field) => {
    if (field.number === INT_VALUE) return doubleField(field.varint)
    return field.number === ARRAY_VALUE
      ? bytesField(ARRAY_VALUE, array(field.content))
      : field.whole
  })
  return Buffer.concat(parts)
}

/** Rewrites the content of every field of that number in a message. */
function inside(number: number, rewrite: (content: Buffer) => Buffer): (message: Buffer) => Buffer {
  return (message) => {
    const parts = fieldsOf(message).map((field) =>
      field.number === number ? bytesField(number, rewrite(field.content)) : field.whole,
    )
    return Buffer.concat(parts)
  }
}

function bytesField(number: number, content: Buffer): Buffer {
  return Buffer.concat([varintOf((number << 3) | WIRE.bytes), varintOf(content.length), content])
}

function doubleField(varint: bigint): Buffer {
  const field = Buffer.alloc(DOUBLE_FIELD_BYTES)
  field.writeUInt8((DOUBLE_VALUE << 3) | WIRE.fixed64)
  // A negative int64 is written in two's complement.
  field.writeDoubleLE(Number(BigInt.asIntN(64, varint)), 1)
  return field
}

function varintOf(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  return Buffer.from([...bytes, rest])
}

function fieldsOf(message: Buffer): Field[] {
  const fields: Field[] = []
  let at = 0
  while (at < message.length) {
    const start = at
    const tag = readVarint(message, at)
    const wire = Number(tag.value & 7n)
    const size = sizeOf(message, tag.end, wire)
    at = size.end
    if (at > message.length) throw new RangeError(`a field ends at ${at} of ${message.length}`)
    fields.push({
      number: Number(tag.value >> 3n),
      varint: size.varint,
      content: message.subarray(size.start, at),
      whole: message.subarray(start, at),
    })
  }
  return fields
}

/** Where the value of a field lies; the varint is 0 for other kinds. */
function sizeOf(message: Buffer, at: number, wire: number) {
  if (wire === WIRE.fixed64) return { start: at, end: at + 8, varint: 0n }
  if (wire === WIRE.fixed32) return { start: at, end: at + 4, varint: 0n }
  if (wire !== WIRE.varint && wire !== WIRE.bytes) throw new RangeError(`wire type ${wire}`)
  const { value, end } = readVarint(message, at)
  if (wire === WIRE.varint) return { start: at, end, varint: value }
  return { start: end, end: end + Number(value), varint: 0n }
}

function readVarint(message: Buffer, start: number): { value: bigint; end: number } {
  // One byte is by far the most frequent length.
  const first = message.readUInt8(start)
  if (first < 0x80) return { value: BigInt(first), end: start + 1 }
  let value = BigInt(first & 0x7f)
  let end = start + 1
  for (let shift = 7n; ; shift += 7n) {
    const byte = message.readUInt8(end)
    end += 1
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return { value, end }
  }
}
