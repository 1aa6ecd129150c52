/**
 * Reads the YAML file into checked values, and knows the line of every key.
 *
 * One error says all that is wrong with keys, each with line, expected and actual. It knows no
 * defaults and no environment.
 */

import { readFileSync, statSync } from 'node:fs'
import { Ajv2020, type ErrorObject } from 'ajv/dist/2020.js'
import { type Document, LineCounter, parseDocument } from 'yaml'
import { Ring2Error } from '../../collector/errors.ts'
import { errorText } from '../errors.ts'
import {
  acceptedText,
  type ConfigKey,
  configKeys,
  configSections,
  findKey,
  publishedSchema,
} from './keys.ts'
import { configLimits } from './limits.ts'

/** A value and where it came from, in words: `ring2.yaml:12`, `RING2_STORE_URL`, … */
export interface Sourced {
  readonly value: unknown
  readonly source: string
}

const validate = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true }).compile(
  publishedSchema(),
)

/**
 * @returns key path → value and line, for the keys that the file sets.
 * @throws Ring2Error RING2_E_CONFIG
 */
export function readConfigFile(file: string): Map<string, Sourced> {
  const lines = new LineCounter()
  const document = parseDocument(readBounded(file), { lineCounter: lines, prettyErrors: false })
  const place = (path: readonly string[]): string => {
    const node = document.getIn(path, true)
    const range = (node as { range?: [number, number, number] } | undefined)?.range
    return range === undefined ? file : `${file}:${lines.linePos(range[0]).line}`
  }
  const fault = document.errors[0]
  if (fault !== undefined) {
    throw yamlError(`${file}:${lines.linePos(fault.pos[0]).line}`, fault)
  }
  const content = toPlain(document, file)
  if (!validate(content)) throw schemaErrors(validate.errors ?? [], content, place, file)
  return flatten(content as Record<string, Record<string, unknown> | null>, place)
}

/** Anchors are resolved here, where a document that multiplies itself is refused. */
function toPlain(document: Document, file: string): unknown {
  try {
    return document.toJS() ?? {}
  } catch (cause) {
    throw yamlError(file, cause)
  }
}

function yamlError(where: string, cause: unknown): Ring2Error {
  const actual = errorText(cause)
  return new Ring2Error('RING2_E_CONFIG', { expected: `YAML in ${where}`, actual, cause })
}

function readBounded(file: string): string {
  try {
    const { size } = statSync(file)
    if (size > configLimits.fileBytesMax) {
      throw new Ring2Error('RING2_E_CONFIG', {
        expected: `a configuration file of at most ${configLimits.fileBytesMax} bytes`,
        actual: `${file} with ${size} bytes`,
      })
    }
    return readFileSync(file, 'utf8')
  } catch (cause) {
    if (cause instanceof Ring2Error) throw cause
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: `a readable configuration file ${file}`,
      actual: errorText(cause),
      action: 'Mend the path given with --config or RING2_CONFIG, or the permissions of the file.',
      cause,
    })
  }
}

function flatten(
  content: Record<string, Record<string, unknown> | null>,
  place: (path: readonly string[]) => string,
): Map<string, Sourced> {
  const values = new Map<string, Sourced>()
  for (const [section, keys] of Object.entries(content)) {
    for (const [name, value] of Object.entries(keys ?? {})) {
      values.set(`${section}.${name}`, { value, source: place([section, name]) })
    }
  }
  return values
}

/** What was wrong with one key, in words. */
interface Fault {
  readonly expected: string
  readonly actual: string
}

function schemaErrors(
  errors: readonly ErrorObject[],
  content: unknown,
  place: (path: readonly string[]) => string,
  file: string,
): Ring2Error {
  // A value may break several rules of its key; the first one says enough.
  const faults = new Map<string, Fault>()
  for (const error of errors) {
    const of = `${error.instancePath} ${error.params.additionalProperty ?? ''}`
    if (!faults.has(of)) faults.set(of, faultOf(error, content, place, file))
  }
  const all = [...faults.values()]
  const named = all.slice(0, configLimits.faultsMax)
  const more = all.length - named.length
  return new Ring2Error('RING2_E_CONFIG', {
    expected: named.map(({ expected }) => expected).join('; '),
    actual: [...named.map(({ actual }) => actual), ...(more > 0 ? [`${more} more`] : [])].join(
      '; ',
    ),
  })
}

function faultOf(
  error: ErrorObject,
  content: unknown,
  place: (path: readonly string[]) => string,
  file: string,
): Fault {
  const path = error.instancePath.split('/').slice(1)
  if (error.keyword === 'additionalProperties') {
    const unknownPath = [...path, String(error.params.additionalProperty)]
    return unknownKey(unknownPath, place(unknownPath))
  }
  const keyPath = path.slice(0, 2)
  const key = findKey(keyPath.join('.'))
  const where = path.length === 0 ? file : `${keyPath.join('.')} in ${place(path)}`
  if (key === undefined) {
    const names = [...configSections.keys()].join(', ')
    return {
      expected: path.length === 0 ? `sections ${names} in ${where}` : `keys and values as ${where}`,
      actual: shown(valueAt(content, path)),
    }
  }
  const actual = key.secret ? 'another value' : shown(valueAt(content, path))
  return {
    expected: `${acceptedText(key.schema)} as ${where}${path.length === 2 ? listAdvice(key, valueAt(content, path)) : ''}`,
    actual: `${actual} (${messageOf(error)})`,
  }
}

/** The validator's words, but for what `expected` says better: lists of values, and patterns. */
export function messageOf({ keyword, message }: ErrorObject): string {
  if (keyword === 'enum') return 'none of these'
  return keyword === 'pattern' ? 'of another form' : (message ?? 'not valid')
}

/** How a value is written that stands alone where a list belongs. */
function listAdvice(key: ConfigKey, value: unknown): string {
  const scalar = typeof value === 'string' || typeof value === 'number'
  return key.schema.type === 'array' && scalar ? `; write [${value}]` : ''
}

/** An unknown key, with those that there are. */
function unknownKey(path: readonly string[], where: string): Fault {
  const section = path[0] ?? ''
  const known = configKeys.filter((key) => key.section === section).map((key) => key.name)
  const expected =
    path.length > 1
      ? `in ${section} one of the keys ${known.join(', ')}`
      : `one of the sections ${[...configSections.keys()].join(', ')}`
  return { expected, actual: `the unknown key ${path.join('.')} (${where})` }
}

function valueAt(content: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, step) =>
      typeof value === 'object' && value !== null
        ? (value as Record<string, unknown>)[step]
        : undefined,
    content,
  )
}

/** A value as an error shows it: short, on one line. */
export function shown(value: unknown): string {
  const textForm = JSON.stringify(value) ?? String(value)
  return textForm.length > 200 ? `${textForm.slice(0, 200)}…` : textForm
}
