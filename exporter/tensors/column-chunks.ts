/**
 * Writes one column of one row group: every column but the payload.
 *
 * Most columns of a row group hold one value (the trace, the model, the hook, ranks, …). Those are
 * written here as a dictionary of one value and one run of it, which costs the same for one row and
 * for thousands. All others go through hyparquet-writer, which chooses encodings and pages.
 */

import type { ColumnChunk, DecodedArray, OffsetIndex, SchemaElement, SchemaTree } from 'hyparquet'
import type { Writer } from 'hyparquet-writer'
import { writeColumn } from 'hyparquet-writer/src/column.js'
import { writePageHeader } from 'hyparquet-writer/src/datapage.js'
import { writeDictionaryPage } from 'hyparquet-writer/src/dictionary.js'
import { encodeNestedValues } from 'hyparquet-writer/src/dremel.js'
import { parquetLimits } from '../limits.ts'
import type { Column, ColumnType, ColumnValue } from './schema.ts'

export interface WrittenChunk {
  readonly chunk: ColumnChunk
  readonly offsetIndex?: OffsetIndex
}

/** @param leaf schema nodes from the root to the leaf of this column. */
export function writeColumnChunk<Row>(
  writer: Writer,
  column: Column<Row>,
  leaf: SchemaTree[],
  rows: readonly Row[],
): WrittenChunk {
  const values = rows.map(column.value)
  const [first] = values
  if (first !== undefined && isConstant(column.type, values)) {
    return { chunk: writeConstant(writer, column, leaf, first, values.length) }
  }
  const pageData = encodeNestedValues(leaf, physicalValues(column.type, values))
  return writeColumn({ writer, column: encoderOf(column, leaf), pageData })
}

function isConstant(type: ColumnType, values: readonly ColumnValue[]): boolean {
  const [first] = values
  // Lists compare by identity, and doubles have two zeros and a NaN; only nulls of those count.
  if (type === 'int64_list' || (type === 'double' && first !== null)) return false
  return values.every((value) => value === first)
}

/** What hyparquet-writer takes: bigints for 64-bit integers. */
function physicalValues(type: ColumnType, values: readonly ColumnValue[]): DecodedArray {
  switch (type) {
    case 'int64':
    case 'timestamp':
      if (values.includes(null))
        return values.map((value) => (value === null ? null : integer(value)))
      return BigInt64Array.from(values, integer)
    case 'int64_list':
      return lists(values)
    default:
      return [...values]
  }
}

function integer(value: ColumnValue): bigint {
  return BigInt(Number(value))
}

/** Neighbouring rows mostly have one shape, so its bigints are made once. */
function lists(values: readonly ColumnValue[]): bigint[][] {
  let previous: readonly number[] = []
  let converted: bigint[] = []
  return values.map((value) => {
    const list: readonly number[] = Array.isArray(value) ? value : []
    const same =
      list.length === previous.length && list.every((size, index) => size === previous[index])
    if (!same) converted = list.map(BigInt)
    previous = list
    return converted
  })
}

function encoderOf<Row>(column: Column<Row>, leaf: SchemaTree[]) {
  return {
    columnName: column.name,
    element: elementOf(leaf),
    schemaPath: leaf.map((node) => node.element),
    codec: 'UNCOMPRESSED' as const,
    compressors: {},
    stats: true,
    statisticsTruncateLength: parquetLimits.statisticsTruncateBytes,
    pageSize: parquetLimits.columnPageBytes,
    columnIndex: false,
    offsetIndex: true,
    ...(column.distinct ? { encoding: 'PLAIN' as const } : {}),
  }
}

function elementOf(leaf: readonly SchemaTree[]): SchemaElement {
  const element = leaf.at(-1)?.element
  if (element === undefined) throw new Error('a column needs a leaf in the schema')
  return element
}

/** Bits of a dictionary index; there is only index 0, and some readers expect at least one bit. */
const INDEX_BITS = 1

function writeConstant<Row>(
  writer: Writer,
  column: Column<Row>,
  leaf: SchemaTree[],
  value: ColumnValue,
  count: number,
): ColumnChunk {
  const chunkStart = writer.offset
  const physical = physicalValues(column.type, [value])
  const isNull = value === null
  if (!isNull) writeDictionaryPage(writer, encoderOf(column, leaf), plainValues(physical))
  const pageStart = writer.offset
  const levels = column.nullable ? runOf(count, isNull ? 0 : 1) : new Uint8Array(0)
  const indexes = isNull ? new Uint8Array(0) : Uint8Array.of(INDEX_BITS, ...runOf(count, 0))
  const encoding = isNull ? ('PLAIN' as const) : ('RLE_DICTIONARY' as const)
  writePageHeader(writer, {
    type: 'DATA_PAGE_V2',
    uncompressed_page_size: levels.length + indexes.length,
    compressed_page_size: levels.length + indexes.length,
    data_page_header_v2: {
      num_values: count,
      num_nulls: isNull ? count : 0,
      num_rows: count,
      encoding,
      definition_levels_byte_length: levels.length,
      repetition_levels_byte_length: 0,
      is_compressed: false,
    },
  })
  writer.appendBytes(levels)
  writer.appendBytes(indexes)
  const bytes = BigInt(writer.offset - chunkStart)
  const bound = isNull ? undefined : physical[0]
  const element = elementOf(leaf)
  if (element.type === undefined) throw new Error(`column ${column.name} has no physical type`)
  return {
    meta_data: {
      type: element.type,
      encodings: isNull ? ['PLAIN'] : ['PLAIN', 'RLE_DICTIONARY'],
      path_in_schema: leaf.slice(1).map((node) => node.element.name),
      codec: 'UNCOMPRESSED',
      num_values: BigInt(count),
      total_compressed_size: bytes,
      total_uncompressed_size: bytes,
      data_page_offset: BigInt(pageStart),
      ...(isNull ? {} : { dictionary_page_offset: BigInt(chunkStart) }),
      statistics: {
        null_count: BigInt(isNull ? count : 0),
        ...(bound === undefined ? {} : { min_value: bound, max_value: bound }),
      },
    },
    file_offset: BigInt(chunkStart),
  }
}

/** Texts as the bytes that a dictionary page holds. */
function plainValues(values: DecodedArray): DecodedArray {
  const [first] = values
  return typeof first === 'string' ? [new TextEncoder().encode(first)] : values
}

/** One run of the RLE / bit-packing hybrid: the count as a varint, and a value of one byte. */
function runOf(count: number, value: number): Uint8Array {
  const bytes: number[] = []
  let header = count * 2
  while (header >= 0x80) {
    bytes.push((header % 0x80) + 0x80)
    header = Math.floor(header / 0x80)
  }
  return Uint8Array.of(...bytes, header, value)
}
