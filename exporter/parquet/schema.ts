/**
 * The columns of the two Parquet datasets, in one place: what they are called, their types, and how
 * a value comes from a tensor row or a request summary.
 *
 * Not here: how they are encoded (file-writer.ts). Names and types are a public promise; a change
 * of either raises SCHEMA_VERSION, which every file carries as `ring2.schema`.
 */

import type { SchemaElement } from 'hyparquet'
import type { ProducerInfo, RequestSummary, TensorRow } from '../../collector/records.ts'

export const SCHEMA_VERSION = '1'

export type ColumnType = 'string' | 'int32' | 'int64' | 'double' | 'timestamp' | 'int64_list'
/** Integers of every width are numbers here; the file writer makes 64-bit ones of them. */
export type ColumnValue = string | number | readonly number[] | null

export interface Column<Row> {
  readonly name: string
  readonly type: ColumnType
  readonly nullable: boolean
  /** Readers look rows up by it. */
  readonly bloomFilter: boolean
  readonly value: (row: Row) => ColumnValue
}

/** The one column whose bytes go to the file by reference. */
export interface PayloadColumn<Row> {
  readonly name: string
  readonly value: (row: Row) => Uint8Array
}

/** Rows share their producer, so its label is made once and not once for each row. */
const producerLabels = new WeakMap<ProducerInfo, string>()

/** `<segment>-<boot>`: one life of one producer. */
export function producerLabel(producer: ProducerInfo): string {
  const known = producerLabels.get(producer)
  if (known !== undefined) return known
  const label = `${producer.segment}-${producer.boot}`
  producerLabels.set(producer, label)
  return label
}

function text<Row>(name: string, value: (row: Row) => string): Column<Row> {
  return { name, type: 'string', nullable: false, bloomFilter: false, value }
}

/** Of a trace or a request: what rows are looked up by. */
function id<Row>(name: string, value: (row: Row) => string): Column<Row> {
  return { name, type: 'string', nullable: false, bloomFilter: true, value }
}

function nullableText<Row>(name: string, value: (row: Row) => string | null): Column<Row> {
  return { name, type: 'string', nullable: true, bloomFilter: false, value }
}

function int32<Row>(name: string, value: (row: Row) => number): Column<Row> {
  return { name, type: 'int32', nullable: false, bloomFilter: false, value }
}

function int64<Row>(name: string, value: (row: Row) => number): Column<Row> {
  return { name, type: 'int64', nullable: false, bloomFilter: false, value }
}

function double<Row>(name: string, value: (row: Row) => number | undefined): Column<Row> {
  return {
    name,
    type: 'double',
    nullable: true,
    bloomFilter: false,
    value: (row) => value(row) ?? null,
  }
}

function nullableTimestamp<Row>(
  name: string,
  value: (row: Row) => number | undefined,
): Column<Row> {
  return {
    name,
    type: 'timestamp',
    nullable: true,
    bloomFilter: false,
    value: (row) => value(row) ?? null,
  }
}

function timestamp<Row>(name: string, value: (row: Row) => number): Column<Row> {
  return { name, type: 'timestamp', nullable: false, bloomFilter: false, value }
}

function standardDeviation(variance: number | undefined): number | undefined {
  return variance === undefined ? undefined : Math.sqrt(variance)
}

export const tensorColumns: readonly Column<TensorRow>[] = [
  id('trace_id', (row) => row.request.traceId),
  nullableText('span_id', (row) => (row.request.spanId === '' ? null : row.request.spanId)),
  id('request_id', (row) => row.request.requestId),
  text('model', (row) => row.model.name),
  text('model_revision', (row) => row.model.revision),
  text('engine', (row) => row.model.engine),
  text('hook', (row) => row.hook),
  int32('layer', (row) => row.layer),
  int64('step', (row) => row.step),
  text('phase', (row) => row.phase),
  int32('token_start', (row) => row.tokenStart),
  int32('token_end', (row) => row.tokenEnd),
  int32('kv_offset', (row) => row.kvOffset),
  int32('tp_rank', (row) => row.ranks.tp),
  int32('pp_rank', (row) => row.ranks.pp),
  int32('dp_rank', (row) => row.ranks.dp),
  int32('ep_rank', (row) => row.ranks.ep),
  timestamp('captured_at', (row) => row.capturedAtMicros),
  text('dtype', (row) => row.dtype),
  {
    name: 'shape',
    type: 'int64_list',
    nullable: false,
    bloomFilter: false,
    value: (row) => row.shape,
  },
  text('encoding', (row) => row.encoding ?? 'raw'),
  int64('data_bytes', (row) => row.decodedBytes ?? row.data.byteLength),
  int64('data_crc32c', (row) => row.crc32c),
  double('l2_mean', (row) => row.statistics.l2Mean),
  double('l2_max', (row) => row.statistics.l2Max),
  double('abs_max', (row) => row.statistics.absMax),
  double('mean', (row) => row.statistics.mean),
  double('std', (row) => standardDeviation(row.statistics.variance)),
  double('entropy_mean', (row) => row.statistics.entropyMean),
  double('sink_mass', (row) => row.statistics.sinkMass),
  // Files of earlier versions lack these three.
  double('top1_probability_mean', (row) => row.statistics.top1ProbabilityMean),
  double('margin_mean', (row) => row.statistics.marginMean),
  double('surprisal_mean', (row) => row.statistics.surprisalMean),
  int64('nonfinite', (row) => row.nonfinite),
  text('producer', (row) => producerLabel(row.producer)),
  text('host', (row) => row.producer.host),
]

export const tensorPayload: PayloadColumn<TensorRow> = {
  name: 'data',
  value: (row) => row.data,
}

export const requestColumns: readonly Column<RequestSummary>[] = [
  id('trace_id', (row) => row.request.traceId),
  text('span_id', (row) => row.request.spanId),
  nullableText('parent_span_id', (row) => row.request.parentSpanId),
  id('request_id', (row) => row.request.requestId),
  text('model', (row) => row.model.name),
  text('model_revision', (row) => row.model.revision),
  text('engine', (row) => row.model.engine),
  text('producer', (row) => producerLabel(row.producer)),
  text('host', (row) => row.producer.host),
  timestamp('started_at', (row) => row.request.startedAtMicros),
  timestamp('ended_at', (row) => row.endedAtMicros),
  int64('tokens', (row) => row.tokens),
  int64('prompt_tokens', (row) => row.promptTokens),
  int64('steps', (row) => row.steps),
  text('verdict', (row) => row.verdict),
  text('completeness', (row) => row.completeness.state),
  int64('expected', (row) => row.completeness.expected),
  int64('seen', (row) => row.completeness.seen),
  int64('nan', (row) => row.nan),
  int64('pos_inf', (row) => row.posInf),
  int64('neg_inf', (row) => row.negInf),
  int64('tensors_stored', (row) => row.tensorsStored),
  int64('bytes_stored', (row) => row.bytesStored),
  text('summary', (row) => JSON.stringify(row)),
]

/** Requests whose trace context came after their rows: which trace they belong to. */
export const contextColumns: readonly Column<RequestSummary>[] = [
  id('trace_id', (row) => row.request.traceId),
  text('span_id', (row) => row.request.spanId),
  nullableText('parent_span_id', (row) => row.request.parentSpanId),
  text('stored_trace_id', (row) => row.request.storedTraceId ?? row.request.traceId),
  id('request_id', (row) => row.request.requestId),
  text('model', (row) => row.model.name),
  text('producer', (row) => producerLabel(row.producer)),
  text('host', (row) => row.producer.host),
  timestamp('started_at', (row) => row.request.startedAtMicros),
  // Files of earlier versions end here.
  nullableText('trace_state', (row) => row.request.traceState),
  nullableTimestamp('parent_started_at', (row) => row.request.parentWindow?.startedAtMicros),
  nullableTimestamp('parent_ended_at', (row) => row.request.parentWindow?.endedAtMicros),
]

/**
 * Parquet schema of the payload, which is never null, then of the columns. The payload comes first
 * because readers that share a file among workers (parquet-java, so Spark) take the place of a row
 * group's first column for that of the row group, and pass over groups that seem to end outside.
 */
export function schemaElements<Row>(
  columns: readonly Column<Row>[],
  payload: PayloadColumn<Row> | null,
): SchemaElement[] {
  const children = columns.length + (payload === null ? 0 : 1)
  const elements: SchemaElement[] = [{ name: 'ring2', num_children: children }]
  if (payload !== null) {
    elements.push({ name: payload.name, type: 'BYTE_ARRAY', repetition_type: 'REQUIRED' })
  }
  for (const column of columns) elements.push(...columnElements(column))
  return elements
}

function columnElements<Row>(column: Column<Row>): SchemaElement[] {
  const name = column.name
  const repetition_type = column.nullable ? 'OPTIONAL' : 'REQUIRED'
  switch (column.type) {
    case 'string': {
      const logical_type = { type: 'STRING' } as const
      return [{ name, type: 'BYTE_ARRAY', repetition_type, converted_type: 'UTF8', logical_type }]
    }
    case 'int32':
      return [{ name, type: 'INT32', repetition_type }]
    case 'int64':
      return [{ name, type: 'INT64', repetition_type }]
    case 'double':
      return [{ name, type: 'DOUBLE', repetition_type }]
    case 'timestamp': {
      const logical_type = { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' } as const
      const converted_type = 'TIMESTAMP_MICROS'
      return [{ name, type: 'INT64', repetition_type, converted_type, logical_type }]
    }
    case 'int64_list': {
      const logical_type = { type: 'LIST' } as const
      return [
        { name, repetition_type, converted_type: 'LIST', logical_type, num_children: 1 },
        { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
        { name: 'element', type: 'INT64', repetition_type: 'REQUIRED' },
      ]
    }
  }
}
