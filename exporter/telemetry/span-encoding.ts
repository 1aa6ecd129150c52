/**
 * Spans as a serialized ExportTraceServiceRequest of OTLP.
 *
 * The SDK's serializer writes every whole number as an integer, so that a series of statistics
 * arrives as a mixture; here a statistic is a double whatever its value. Times are whole
 * microseconds. Pure; it sends nothing.
 *
 * Field numbers: opentelemetry-proto 1.x, collector/trace/v1/trace_service.proto and
 * trace/v1/trace.proto.
 */
import type { Attributes, HrTime, Link } from '@opentelemetry/api'
import type { ReadableSpan, TimedEvent } from '@opentelemetry/sdk-trace'
import { type OtlpValue, writeAttribute, writeResource, writeScope } from './otlp-attributes.ts'
import { createProtobufWriter, type ProtobufWriter } from './protobuf.ts'

const REQUEST = { resourceSpans: 1 } as const
const RESOURCE_SPANS = { resource: 1, scopeSpans: 2, schemaUrl: 3 } as const
const SCOPE_SPANS = { scope: 1, spans: 2 } as const
const SPAN = {
  traceId: 1,
  spanId: 2,
  traceState: 3,
  parentSpanId: 4,
  name: 5,
  kind: 6,
  start: 7,
  end: 8,
  attributes: 9,
  droppedAttributes: 10,
  events: 11,
  droppedEvents: 12,
  links: 13,
  droppedLinks: 14,
  status: 15,
  flags: 16,
} as const
const EVENT = { time: 1, name: 2, attributes: 3, dropped: 4 } as const
const LINK = { traceId: 1, spanId: 2, traceState: 3, attributes: 4, dropped: 5, flags: 6 } as const
const STATUS = { message: 2, code: 3 } as const

/** SpanFlags: whether the parent (or the linked span) is of another process is known, and is so. */
const HAS_IS_REMOTE = 0x100
const IS_REMOTE = 0x200
const NANOS_PER_MICRO = 1000
/** Room for one span with its statistics. */
const SPAN_BYTES = 4096

/**
 * @param spans in any order; neighbours of one resource and scope share their message.
 * @param isDouble whether the span attribute of this name is a double, or an array of doubles.
 * @throws RangeError or TypeError when a span has a value that OTLP has no form for.
 */
export function encodeSpans(
  spans: readonly ReadableSpan[],
  isDouble: (name: string) => boolean,
): Buffer<ArrayBuffer> {
  const writer = createProtobufWriter(spans.length * SPAN_BYTES)
  // The same names come with every span.
  const known = new Map<string, boolean>()
  const isDoubleKnown = (name: string): boolean => {
    const answer = known.get(name) ?? isDouble(name)
    known.set(name, answer)
    return answer
  }
  let opened: number[] = []
  const closeAll = (): void => {
    while (opened.length > 0) writer.close(opened.pop() ?? 0)
  }
  let previous: ReadableSpan | undefined
  for (const span of spans) {
    if (
      span.resource !== previous?.resource ||
      span.instrumentationScope !== previous.instrumentationScope
    ) {
      closeAll()
      opened = openScope(writer, span)
    }
    previous = span
    const start = writer.open(SCOPE_SPANS.spans)
    writeSpan(writer, span, isDoubleKnown)
    writer.close(start)
  }
  closeAll()
  return writer.finish()
}

/** Starts of the messages that stay open, outermost first. */
function openScope(writer: ProtobufWriter, span: ReadableSpan): number[] {
  const { resource, instrumentationScope } = span
  const resourceSpans = writer.open(REQUEST.resourceSpans)
  // Attributes that are still being found are left out; the queue waits for them before it sends.
  const attributes = resource.attributes as Readonly<Record<string, OtlpValue>>
  writeResource(writer, RESOURCE_SPANS.resource, attributes)
  if (resource.schemaUrl !== undefined) writer.text(RESOURCE_SPANS.schemaUrl, resource.schemaUrl)
  const scopeSpans = writer.open(RESOURCE_SPANS.scopeSpans)
  writeScope(writer, SCOPE_SPANS.scope, instrumentationScope)
  return [resourceSpans, scopeSpans]
}

function writeSpan(
  writer: ProtobufWriter,
  span: ReadableSpan,
  isDouble: (name: string) => boolean,
): void {
  const { traceId, spanId, traceState, traceFlags } = span.spanContext()
  const parent = span.parentSpanContext
  writer.hex(SPAN.traceId, traceId)
  writer.hex(SPAN.spanId, spanId)
  if (traceState !== undefined) writer.text(SPAN.traceState, traceState.serialize())
  if (parent !== undefined) writer.hex(SPAN.parentSpanId, parent.spanId)
  writer.text(SPAN.name, span.name)
  // The API counts kinds from 0 (internal); OTLP has 0 for "unspecified".
  writer.varint(SPAN.kind, span.kind + 1)
  writeTime(writer, SPAN.start, span.startTime)
  writeTime(writer, SPAN.end, span.endTime)
  writeAttributes(writer, SPAN.attributes, span.attributes, isDouble)
  writeCount(writer, SPAN.droppedAttributes, span.droppedAttributesCount)
  for (const event of span.events) writeEvent(writer, event, isDouble)
  writeCount(writer, SPAN.droppedEvents, span.droppedEventsCount)
  for (const link of span.links) writeLink(writer, link, isDouble)
  writeCount(writer, SPAN.droppedLinks, span.droppedLinksCount)
  const status = writer.open(SPAN.status)
  if (span.status.message) writer.text(STATUS.message, span.status.message)
  writeCount(writer, STATUS.code, span.status.code)
  writer.close(status)
  writer.fixed32(SPAN.flags, flagsOf(traceFlags, parent?.isRemote))
}

function writeEvent(
  writer: ProtobufWriter,
  event: TimedEvent,
  isDouble: (name: string) => boolean,
): void {
  const start = writer.open(SPAN.events)
  writeTime(writer, EVENT.time, event.time)
  writer.text(EVENT.name, event.name)
  writeAttributes(writer, EVENT.attributes, event.attributes, isDouble)
  writeCount(writer, EVENT.dropped, event.droppedAttributesCount)
  writer.close(start)
}

function writeLink(writer: ProtobufWriter, link: Link, isDouble: (name: string) => boolean): void {
  const start = writer.open(SPAN.links)
  writer.hex(LINK.traceId, link.context.traceId)
  writer.hex(LINK.spanId, link.context.spanId)
  const { traceState } = link.context
  if (traceState !== undefined) writer.text(LINK.traceState, traceState.serialize())
  writeAttributes(writer, LINK.attributes, link.attributes, isDouble)
  writeCount(writer, LINK.dropped, link.droppedAttributesCount)
  writer.fixed32(LINK.flags, flagsOf(link.context.traceFlags, link.context.isRemote))
  writer.close(start)
}

/** A number that is whole is an integer, unless its attribute says otherwise. */
function writeAttributes(
  writer: ProtobufWriter,
  field: number,
  attributes: Attributes | undefined,
  isDouble: (name: string) => boolean,
): void {
  for (const key in attributes) {
    const numbers = isDouble(key) ? 'double' : 'int'
    writeAttribute(writer, field, key, attributes[key] as OtlpValue, numbers)
  }
}

function writeCount(writer: ProtobufWriter, field: number, count: number | undefined): void {
  if (count !== undefined && count > 0) writer.varint(field, count)
}

function writeTime(writer: ProtobufWriter, field: number, [seconds, nanos]: HrTime): void {
  const micros = seconds * 1e6 + Math.floor(nanos / NANOS_PER_MICRO)
  writer.fixed64(field, micros, NANOS_PER_MICRO)
}

function flagsOf(traceFlags: number, isRemote: boolean | undefined): number {
  return traceFlags | HAS_IS_REMOTE | (isRemote === true ? IS_REMOTE : 0)
}
