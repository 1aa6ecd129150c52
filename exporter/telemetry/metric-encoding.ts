/**
 * Families of metrics as serialized ExportMetricsServiceRequests of OTLP: exponential histograms
 * with exemplars, sums and gauges, cumulative, each point with the start that it really has.
 *
 * Requests are bounded in points and bytes, so a family may go on in the next one, with its
 * definition again. A point that is larger than the bound alone is a request of its own. Pure; it
 * sends nothing.
 *
 * Field numbers: opentelemetry-proto 1.x, collector/metrics/v1/metrics_service.proto,
 * metrics/v1/metrics.proto, resource/v1/resource.proto and common/v1/common.proto.
 */

import type { ExemplarPoint, HistogramPoint } from '../../collector/records.ts'
import type { MetricDefinition, MetricKind } from './metric-definition.ts'
import type {
  HistogramSeries,
  MetricFamily,
  NumberSeries,
  PointAttributes,
} from './metric-families.ts'
import {
  type OtlpValue,
  type Scope,
  writeAttribute,
  writeResource,
  writeScope,
} from './otlp-attributes.ts'
import { createProtobufWriter, type ProtobufWriter } from './protobuf.ts'

const REQUEST = { resourceMetrics: 1 } as const
const RESOURCE_METRICS = { resource: 1, scopeMetrics: 2 } as const
const SCOPE_METRICS = { scope: 1, metrics: 2 } as const
const METRIC = { name: 1, description: 2, unit: 3 } as const
/** The field of Metric that holds the points. */
const DATA: Readonly<Record<MetricKind, number>> = {
  gauge: 5,
  counter: 7,
  up_down_counter: 7,
  histogram: 10,
}
/** Sum and ExponentialHistogram; a Gauge has only the points. */
const POINTS = { dataPoints: 1, temporality: 2, isMonotonic: 3 } as const
const TEMPORALITY_CUMULATIVE = 2
const NUMBER_POINT = { start: 2, time: 3, asDouble: 4, asInt: 6, attributes: 7 } as const
const HISTOGRAM_POINT = {
  attributes: 1,
  start: 2,
  time: 3,
  count: 4,
  sum: 5,
  scale: 6,
  zeroCount: 7,
  positive: 8,
  exemplars: 11,
  min: 12,
  max: 13,
  zeroThreshold: 14,
} as const
const BUCKETS = { offset: 1, bucketCounts: 2 } as const
const EXEMPLAR = { time: 2, asDouble: 3, spanId: 4, traceId: 5, filteredAttributes: 7 } as const

const NANOS_PER_MICRO = 1000
/** Samples below this are counted as zero: kFoldZeroBelow of native/src/fold.h. */
export const ZERO_THRESHOLD = 1e-9
/** Messages around a metric: the resource's and the scope's. */
const METRICS_DEPTH = 2
/** Room for the lengths of the messages around the points. */
const CLOSING_BYTES = 32

export interface MetricSource {
  readonly resource: Readonly<Record<string, OtlpValue>>
  readonly scope: Scope
}

export interface RequestLimits {
  readonly pointsMax: number
  readonly bytesMax: number
}

export interface EncodedRequest {
  readonly bytes: Buffer
  readonly points: number
}

interface Encoding {
  readonly writer: ProtobufWriter
  readonly source: MetricSource
  readonly limits: RequestLimits
  readonly takenAtMicros: number
  readonly onUnfit: (error: unknown) => void
  readonly requests: EncodedRequest[]
  /** Points of the request at hand. */
  points: number
  /** Starts of the messages that are open, outermost first. */
  readonly opened: number[]
}

/**
 * @param takenAtMicros the time of all points but those that have one of their own.
 * @param onUnfit takes the error of a point that has a value OTLP has no form for, and is left out.
 * @returns no request when there is no point.
 */
export function encodeMetrics(
  families: readonly MetricFamily[],
  takenAtMicros: number,
  source: MetricSource,
  limits: RequestLimits,
  onUnfit: (error: unknown) => void,
): EncodedRequest[] {
  const writer = createProtobufWriter(limits.bytesMax / 8)
  const requests: EncodedRequest[] = []
  const bounds = { limits, takenAtMicros, onUnfit }
  const encoding = { writer, source, ...bounds, requests, points: 0, opened: [] }
  for (const { definition, histograms, numbers } of families) {
    if (definition.kind === 'histogram') {
      addPoints(encoding, definition, histograms, writeHistogramPoint)
    } else {
      const isInteger = definition.kind !== 'gauge'
      addPoints(encoding, definition, numbers, (target, series: NumberSeries, timeMicros) =>
        writeNumberPoint(target, series, timeMicros, isInteger),
      )
    }
    closeMetric(encoding)
  }
  endRequest(encoding)
  return requests
}

type WritePoint<Series> = (writer: ProtobufWriter, series: Series, timeMicros: number) => void

function addPoints<Series extends NumberSeries | HistogramSeries>(
  encoding: Encoding,
  definition: MetricDefinition,
  all: readonly Series[],
  write: WritePoint<Series>,
): void {
  const { writer, limits, opened } = encoding
  for (const series of all) {
    const before = writer.length
    const depth = opened.length
    if (depth === 0) beginRequest(encoding)
    if (depth <= METRICS_DEPTH) openMetric(encoding, definition)
    try {
      addPoint(encoding, series, write)
    } catch (error) {
      // One such point must not cost all the others, export after export.
      writer.truncate(before)
      opened.length = depth
      encoding.onUnfit(error)
      continue
    }
    const isFull =
      encoding.points >= limits.pointsMax || writer.length + CLOSING_BYTES > limits.bytesMax
    if (isFull && encoding.points > 0) {
      writer.truncate(before)
      opened.length = depth
      endRequest(encoding)
      beginRequest(encoding)
      openMetric(encoding, definition)
      addPoint(encoding, series, write)
    }
    encoding.points += 1
  }
}

function addPoint<Series extends NumberSeries | HistogramSeries>(
  { writer, takenAtMicros }: Encoding,
  series: Series,
  write: WritePoint<Series>,
): void {
  const start = writer.open(POINTS.dataPoints)
  write(writer, series, series.takenAtMicros ?? takenAtMicros)
  writer.close(start)
}

function beginRequest({ writer, source, opened }: Encoding): void {
  opened.push(writer.open(REQUEST.resourceMetrics))
  writeResource(writer, RESOURCE_METRICS.resource, source.resource)
  opened.push(writer.open(RESOURCE_METRICS.scopeMetrics))
  writeScope(writer, SCOPE_METRICS.scope, source.scope)
}

function openMetric({ writer, opened }: Encoding, definition: MetricDefinition): void {
  opened.push(writer.open(SCOPE_METRICS.metrics))
  writer.text(METRIC.name, definition.name)
  writer.text(METRIC.description, definition.help)
  writer.text(METRIC.unit, definition.unit)
  opened.push(writer.open(DATA[definition.kind]))
  if (definition.kind === 'gauge') return
  writer.varint(POINTS.temporality, TEMPORALITY_CUMULATIVE)
  if (definition.kind === 'counter') writer.varint(POINTS.isMonotonic, 1)
}

function closeMetric({ writer, opened }: Encoding): void {
  while (opened.length > METRICS_DEPTH) writer.close(opened.pop() ?? 0)
}

function endRequest(encoding: Encoding): void {
  const { writer, opened, requests, points } = encoding
  closeMetric(encoding)
  while (opened.length > 0) writer.close(opened.pop() ?? 0)
  if (points > 0) requests.push({ bytes: writer.finish(), points })
  writer.truncate(0)
  encoding.points = 0
}

/** A start that a producer's clock puts after the point's time would make the point invalid. */
function writeTimes(
  writer: ProtobufWriter,
  fields: { readonly start: number; readonly time: number },
  startedAtMicros: number,
  timeMicros: number,
): void {
  const start = Math.max(0, Math.min(startedAtMicros, timeMicros))
  writer.fixed64(fields.start, start, NANOS_PER_MICRO)
  writer.fixed64(fields.time, timeMicros, NANOS_PER_MICRO)
}

function writeNumberPoint(
  writer: ProtobufWriter,
  series: NumberSeries,
  timeMicros: number,
  isInteger: boolean,
): void {
  writeTimes(writer, NUMBER_POINT, series.startedAtMicros, timeMicros)
  if (isInteger) writer.sfixed64(NUMBER_POINT.asInt, Math.round(series.value))
  else writer.double(NUMBER_POINT.asDouble, series.value)
  writeAttributes(writer, NUMBER_POINT.attributes, series.attributes)
}

function writeHistogramPoint(
  writer: ProtobufWriter,
  series: HistogramSeries,
  timeMicros: number,
): void {
  const { histogram } = series
  writeAttributes(writer, HISTOGRAM_POINT.attributes, series.attributes)
  writeTimes(writer, HISTOGRAM_POINT, series.startedAtMicros, timeMicros)
  writer.fixed64(HISTOGRAM_POINT.count, histogram.count)
  writer.double(HISTOGRAM_POINT.sum, histogram.sum)
  writer.sint32(HISTOGRAM_POINT.scale, histogram.scale)
  writer.fixed64(HISTOGRAM_POINT.zeroCount, histogram.zeroCount)
  writer.double(HISTOGRAM_POINT.zeroThreshold, ZERO_THRESHOLD)
  writeBuckets(writer, histogram)
  if (histogram.exemplar !== undefined) writeExemplar(writer, histogram.exemplar)
  // An empty histogram has no extremes, and a zero would be a false one.
  if (histogram.count === 0) return
  writer.double(HISTOGRAM_POINT.min, histogram.min)
  writer.double(HISTOGRAM_POINT.max, histogram.max)
}

function writeBuckets(writer: ProtobufWriter, histogram: HistogramPoint): void {
  const buckets = writer.open(HISTOGRAM_POINT.positive)
  writer.sint32(BUCKETS.offset, histogram.offset)
  writer.packed(BUCKETS.bucketCounts, histogram.buckets)
  writer.close(buckets)
}

function writeExemplar(writer: ProtobufWriter, exemplar: ExemplarPoint): void {
  const start = writer.open(HISTOGRAM_POINT.exemplars)
  writer.fixed64(EXEMPLAR.time, exemplar.atMicros, NANOS_PER_MICRO)
  writer.double(EXEMPLAR.asDouble, exemplar.value)
  writer.hex(EXEMPLAR.spanId, exemplar.spanId)
  writer.hex(EXEMPLAR.traceId, exemplar.traceId)
  writeAttribute(writer, EXEMPLAR.filteredAttributes, 'ring2.request.id', exemplar.requestId)
  writer.close(start)
}

function writeAttributes(writer: ProtobufWriter, field: number, attributes: PointAttributes): void {
  for (const key in attributes) {
    const value = attributes[key as keyof PointAttributes]
    if (value !== undefined) writeAttribute(writer, field, key, value)
  }
}
