/**
 * The columns of a Parquet file as it is, for writing rows of it into another file: names, types and
 * order come from its footer, so a file of an earlier or later version keeps what it has.
 *
 * Only the types that the exporter writes are known; a file with another one is not rewritten.
 */

import type { SchemaElement } from 'hyparquet'
import { Ring2Error } from '../errors.ts'
import { payloadFrom } from '../tensors/records.ts'
import type { ParquetRow } from './parquet-source.ts'
import type { Column, ColumnType, ColumnValue, PayloadColumn } from './schema.ts'

export interface StoredColumns {
  readonly columns: readonly Column<ParquetRow>[]
  readonly payload: PayloadColumn<ParquetRow> | null
}

/** Elements of a list in the schema: the list, its repeated group, and what it holds. */
const LIST_ELEMENTS = 3

/**
 * @param schema of the footer, its root first.
 * @throws Ring2Error RING2_E_STORE for a type that the writer has not.
 */
export function storedColumns(key: string, schema: readonly SchemaElement[]): StoredColumns {
  const columns: Column<ParquetRow>[] = []
  let payload: PayloadColumn<ParquetRow> | null = null
  for (let index = 1; index < schema.length; ) {
    const element = schema[index] as SchemaElement
    const isList = element.num_children !== undefined && element.num_children > 0
    if (isPayload(element)) payload = { name: element.name, value: payloadFrom }
    else columns.push(columnOf(key, schema.slice(index, index + LIST_ELEMENTS)))
    index += isList ? LIST_ELEMENTS : 1
  }
  return { columns, payload }
}

function isPayload({ name, type, num_children, converted_type, logical_type }: SchemaElement) {
  const plain = converted_type === undefined && logical_type === undefined
  return name === 'data' && type === 'BYTE_ARRAY' && num_children === undefined && plain
}

function columnOf(key: string, elements: readonly SchemaElement[]): Column<ParquetRow> {
  const [element] = elements
  const type = typeOf(elements)
  if (element === undefined || type === null) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `columns of the types that this version writes in ${key}`,
      actual: `the column ${element?.name} of type ${element?.type ?? 'of a group'}`,
      action: 'Use an exporter of the version that wrote the file.',
    })
  }
  const { name } = element
  return {
    name,
    type,
    nullable: element.repetition_type === 'OPTIONAL',
    bloomFilter: name === 'trace_id' || name === 'request_id',
    value: (row) => cellOf(row[name]),
  }
}

function typeOf([element, , item]: readonly SchemaElement[]): ColumnType | null {
  switch (element?.type) {
    case 'INT32':
      return element.logical_type === undefined ? 'int32' : null
    case 'INT64': {
      if (element.logical_type === undefined) return 'int64'
      const { logical_type: logical } = element
      return logical.type === 'TIMESTAMP' && logical.unit === 'MICROS' ? 'timestamp' : null
    }
    case 'DOUBLE':
      return 'double'
    case 'BYTE_ARRAY':
      return element.logical_type?.type === 'STRING' ? 'string' : null
    case undefined:
      return element?.logical_type?.type === 'LIST' && item?.type === 'INT64' ? 'int64_list' : null
    default:
      return null
  }
}

function cellOf(value: unknown): ColumnValue {
  if (value === null || value === undefined) return null
  if (typeof value === 'string' || typeof value === 'number') return value
  if (typeof value === 'bigint') return exact(value)
  if (Array.isArray(value)) return value.map((one) => exact(one))
  throw notExact(value)
}

function exact(value: unknown): number {
  const number = typeof value === 'bigint' ? Number(value) : value
  if (typeof number === 'number' && Number.isSafeInteger(number)) return number
  throw notExact(value)
}

function notExact(value: unknown): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: 'texts, numbers, and integers below 2^53 in the columns of a file',
    actual: `${typeof value} ${String(value).slice(0, 80)}`,
    action: 'Use an exporter of the version that wrote the file.',
  })
}
