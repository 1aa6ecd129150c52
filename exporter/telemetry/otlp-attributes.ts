/**
 * Attributes, and the resource and scope that carry them, in OTLP's wire form.
 *
 * Field numbers: opentelemetry-proto 1.x, common/v1/common.proto and resource/v1/resource.proto.
 */
import type { ProtobufWriter } from './protobuf.ts'

const KEY_VALUE = { key: 1, value: 2 } as const
const ANY_VALUE = { text: 1, bool: 2, int: 3, double: 4, array: 5 } as const
const ARRAY = { values: 1 } as const
const RESOURCE = { attributes: 1 } as const
const SCOPE = { name: 1, version: 2 } as const

export type OtlpValue = string | number | boolean | null | undefined | readonly OtlpValue[]
/** Whole numbers are `int`, or `double` where the attribute is one whatever its value. */
type NumberKind = 'int' | 'double'

export interface Scope {
  readonly name: string
  readonly version?: string | undefined
}

export function writeResource(
  writer: ProtobufWriter,
  field: number,
  attributes: Readonly<Record<string, OtlpValue>>,
): void {
  const resource = writer.open(field)
  for (const key in attributes) writeAttribute(writer, RESOURCE.attributes, key, attributes[key])
  writer.close(resource)
}

export function writeScope(writer: ProtobufWriter, field: number, scope: Scope): void {
  const start = writer.open(field)
  writer.text(SCOPE.name, scope.name)
  if (scope.version !== undefined) writer.text(SCOPE.version, scope.version)
  writer.close(start)
}

export function writeAttribute(
  writer: ProtobufWriter,
  field: number,
  key: string,
  value: OtlpValue,
  numbers: NumberKind = 'int',
): void {
  if (value === undefined || value === null) return
  const keyValue = writer.open(field)
  writer.text(KEY_VALUE.key, key)
  const any = writer.open(KEY_VALUE.value)
  writeValue(writer, value, numbers)
  writer.close(any)
  writer.close(keyValue)
}

function writeValue(writer: ProtobufWriter, value: OtlpValue, numbers: NumberKind): void {
  if (typeof value === 'number') {
    if (numbers === 'int' && Number.isSafeInteger(value)) writer.int64(ANY_VALUE.int, value)
    else writer.double(ANY_VALUE.double, value)
  } else if (typeof value === 'string') writer.text(ANY_VALUE.text, value)
  else if (typeof value === 'boolean') writer.varint(ANY_VALUE.bool, value ? 1 : 0)
  else if (Array.isArray(value)) writeArray(writer, value, numbers)
}

function writeArray(
  writer: ProtobufWriter,
  values: readonly OtlpValue[],
  numbers: NumberKind,
): void {
  const array = writer.open(ANY_VALUE.array)
  for (const value of values) {
    // An element that is nothing stays in its place, as an empty AnyValue.
    const element = writer.open(ARRAY.values)
    writeValue(writer, value, numbers)
    writer.close(element)
  }
  writer.close(array)
}
