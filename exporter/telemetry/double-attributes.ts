/**
 * Makes chosen attributes of spans doubles in a serialized ExportTraceServiceRequest.
 *
 * JavaScript has one kind of number, so the serializer writes every whole one as an integer, and a
 * series of statistics arrives as a mixture. This rewrites the wire form and nothing else: fields
 * that are not on the way to a chosen attribute are copied as they are, unknown ones included.
 *
 * Field numbers: opentelemetry-proto 1.x, trace.proto and common.proto.
 */

import { createProtobufReader, createProtobufWriter, type ProtobufWriter } from './protobuf.ts'

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

/** Writes the fields of a message, changed or as they are. */
type Rewrite = (writer: ProtobufWriter, message: Buffer) => void

/**
 * @param request a serialized ExportTraceServiceRequest.
 * @param isDouble whether the span attribute of this name is a double, or an array of doubles.
 * @returns the same request, in which those attributes have no integer.
 * @throws RangeError when the bytes are no Protocol Buffers message.
 */
export function withDoubles(request: Uint8Array, isDouble: (name: string) => boolean): Buffer {
  const value = inside(VALUE, doubleValue)
  const attribute: Rewrite = (writer, message) => {
    if (isDouble(nameOf(message))) value(writer, message)
    else writer.raw(message)
  }
  const spans = inside(SCOPE_SPANS, inside(SPANS, inside(SPAN_ATTRIBUTES, attribute)))
  const writer = createProtobufWriter(2 * request.length)
  const { buffer, byteOffset, byteLength } = request
  inside(RESOURCE_SPANS, spans)(writer, Buffer.from(buffer, byteOffset, byteLength))
  return writer.finish()
}

function nameOf(keyValue: Buffer): string {
  const reader = createProtobufReader(keyValue)
  while (reader.next()) if (reader.field === KEY) return reader.text()
  return ''
}

/** Rewrites the content of every field of that number in a message. */
function inside(number: number, rewrite: Rewrite): Rewrite {
  return (writer, message) => {
    const reader = createProtobufReader(message)
    while (reader.next()) {
      if (reader.field !== number) {
        writer.raw(reader.whole())
        continue
      }
      const start = writer.open(number)
      rewrite(writer, reader.content())
      writer.close(start)
    }
  }
}

/** An AnyValue whose integers, those of its array included, are doubles. */
function doubleValue(writer: ProtobufWriter, message: Buffer): void {
  const reader = createProtobufReader(message)
  while (reader.next()) {
    if (reader.field === INT_VALUE) writer.double(DOUBLE_VALUE, reader.int64())
    else if (reader.field === ARRAY_VALUE) {
      const start = writer.open(ARRAY_VALUE)
      inside(ARRAY_VALUES, doubleValue)(writer, reader.content())
      writer.close(start)
    } else writer.raw(reader.whole())
  }
}
