/**
 * The index of one request in a bucket: a small JSON object that tells which rows of which files hold
 * its tensors, so that a trace is found by listing its own prefix, whoever wrote it. Pure: no store,
 * no catalogue.
 *
 *   catalog/{first two of the trace id}/{trace id}/{producer}-{hash of producer and request}-{hash}.json
 *
 * The last hash is of the content, so an object never changes: what is known by its key need not be
 * read again. An index that is read is not trusted: another program may have written it.
 */

import { createHash } from 'node:crypto'
import type { RequestSummary } from '../../collector/records.ts'
import { errorText, Ring2Error } from '../errors.ts'
import { datasetOf, indexPrefix, isKey, slug } from '../store/keys.ts'
import type { AliasEntry, RequestEntry } from './description.ts'
import type { CatalogFile, CatalogSeries, CatalogVocabularyPart, WholeRequest } from './rows.ts'

const INDEX_VERSION = 1
const HASH_CHARACTERS = 16
const INDEX_SUFFIX = '.json'

export interface EncodedIndex {
  /** One for each trace that the request is known by. */
  readonly keys: readonly string[]
  readonly bytes: Uint8Array
}

export function encodeIndex(whole: WholeRequest): EncodedIndex {
  const places = new Map(whole.files.map((file, index) => [file.key, index]))
  const text = JSON.stringify({
    ring2_trace_index: INDEX_VERSION,
    request: whole.request,
    aliases: whole.aliases,
    files: whole.files.map(({ key, bytes, rows, tail_start }) => ({
      key,
      bytes,
      rows,
      tail_start,
    })),
    series: whole.series.map((one) => seriesFields(one, places.get(one.key) ?? 0)),
    vocabulary: whole.vocabulary.map(({ key, part, parts, model, row }) => {
      return [places.get(key) ?? 0, part, parts, model, row]
    }),
  })
  const { trace_id: traceId, request_id: requestId, producer } = whole.request
  const request = hash(JSON.stringify([producer, requestId]))
  const name = `${slug(producer)}-${request}-${hash(text)}${INDEX_SUFFIX}`
  const traces = new Set([traceId, ...whole.aliases.map((alias) => alias.trace_id)])
  const keys = [...traces].map((trace) => indexPrefix(trace) + name)
  return { keys, bytes: new TextEncoder().encode(text) }
}

function hash(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex').slice(0, HASH_CHARACTERS)
}

/** What all series of a request share is left out. */
function seriesFields(one: CatalogSeries, file: number) {
  return [
    ...[file, one.row_start, one.row_end, one.hook, one.layer],
    ...[one.tp_rank, one.pp_rank, one.dp_rank, one.ep_rank],
    ...[one.token_start, one.token_end, one.dtype, one.bytes],
  ]
}

/**
 * @throws Ring2Error RING2_E_STORE naming the object when it is damaged: no index, of a trace that it
 *   is not filed under, or of other bytes than its key tells.
 */
export function decodeIndex(key: string, bytes: Uint8Array): WholeRequest {
  const told = key.slice(0, -INDEX_SUFFIX.length).slice(-HASH_CHARACTERS)
  const held = hash(bytes)
  if (held !== told) throw damagedIndex(key, `content of the hash ${held}`)
  try {
    return checked(key, JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)))
  } catch (error) {
    if (error instanceof Ring2Error) throw error
    throw damagedIndex(key, errorText(error))
  }
}

export function damagedIndex(key: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a trace index of version ${INDEX_VERSION} in ${key}`,
    actual,
    action: 'Run `ring2-exporter catalog rebuild`: it writes the indexes of a bucket again.',
  })
}

function checked(key: string, document: unknown): WholeRequest {
  const fields = objectOf(document, 'the document')
  if (fields.ring2_trace_index !== INDEX_VERSION) {
    throw damagedIndex(key, `version ${JSON.stringify(fields.ring2_trace_index)?.slice(0, 40)}`)
  }
  const request = requestOf(objectOf(fields.request, 'request'))
  const aliases = listOf(fields.aliases, 'aliases').map((one) => aliasOf(objectOf(one, 'alias')))
  const files = listOf(fields.files, 'files').map((one) => fileOf(objectOf(one, 'file')))
  const series = listOf(fields.series, 'series').map((one) =>
    seriesOf(listOf(one, 'series'), request, files),
  )
  const vocabulary = listOf(fields.vocabulary, 'vocabulary').map((one) =>
    vocabularyOf(listOf(one, 'vocabulary'), files),
  )
  const filedUnder = key.split('/')[2]
  const traces = [request.trace_id, ...aliases.map((alias) => alias.trace_id)]
  if (filedUnder === undefined || !traces.includes(filedUnder)) {
    throw damagedIndex(key, `a request of trace ${request.trace_id}`)
  }
  return { request, aliases, files, series, vocabulary }
}

type Fields = Readonly<Record<string, unknown>>

function objectOf(value: unknown, name: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Fields
  }
  throw new Error(`${name} is no object`)
}

function listOf(value: unknown, name: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new Error(`${name} is no list`)
}

function text(value: unknown, name: string): string {
  if (typeof value === 'string') return value
  throw new Error(`${name} is no text`)
}

function integer(value: unknown, name: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value
  throw new Error(`${name} is no integer`)
}

function orNull<T>(
  value: unknown,
  name: string,
  of: (value: unknown, name: string) => T,
): T | null {
  return value === null || value === undefined ? null : of(value, name)
}

function requestOf(fields: Fields): RequestEntry {
  return {
    trace_id: traceIdOf(fields.trace_id),
    request_id: text(fields.request_id, 'request_id'),
    producer: text(fields.producer, 'producer'),
    span_id: orNull(fields.span_id, 'span_id', text),
    model: text(fields.model, 'model'),
    model_revision: text(fields.model_revision, 'model_revision'),
    engine: text(fields.engine, 'engine'),
    host: text(fields.host, 'host'),
    started_at: integer(fields.started_at, 'started_at'),
    summary: orNull(fields.summary, 'summary', summaryOf),
  }
}

function traceIdOf(value: unknown): string {
  const traceId = text(value, 'trace_id')
  if (/^[0-9a-f]{32}$/.test(traceId)) return traceId
  throw new Error('trace_id is not 32 hexadecimal digits')
}

/** What the catalogue takes from a summary is checked; the rest is passed on as it is. */
function summaryOf(value: unknown): RequestSummary {
  const fields = objectOf(value, 'summary')
  integer(fields.endedAtMicros, 'summary.endedAtMicros')
  for (const name of ['tokens', 'promptTokens', 'steps']) {
    orNull(fields[name], `summary.${name}`, integer)
  }
  text(fields.verdict, 'summary.verdict')
  text(objectOf(fields.completeness, 'summary.completeness').state, 'completeness.state')
  objectOf(fields.request, 'summary.request')
  const model = objectOf(fields.model, 'summary.model')
  orNull(model.vocabularyFingerprint, 'summary.model.vocabularyFingerprint', text)
  return value as RequestSummary
}

function aliasOf(fields: Fields): AliasEntry {
  return {
    trace_id: traceIdOf(fields.trace_id),
    span_id: text(fields.span_id, 'span_id'),
    stored_trace_id: traceIdOf(fields.stored_trace_id),
    request_id: text(fields.request_id, 'request_id'),
    producer: text(fields.producer, 'producer'),
    parent_span_id: orNull(fields.parent_span_id, 'parent_span_id', text),
    trace_state: orNull(fields.trace_state, 'trace_state', text),
    parent_started_at: orNull(fields.parent_started_at, 'parent_started_at', integer),
    parent_ended_at: orNull(fields.parent_ended_at, 'parent_ended_at', integer),
  }
}

function fileOf(fields: Fields): CatalogFile {
  const key = text(fields.key, 'key')
  if (!isKey(key)) throw new Error('a file has no key of the store')
  return {
    key,
    dataset: datasetOf(key),
    bytes: integer(fields.bytes, 'bytes'),
    rows: integer(fields.rows, 'rows'),
    tail_start: orNull(fields.tail_start, 'tail_start', integer),
  }
}

function vocabularyOf(
  fields: readonly unknown[],
  files: readonly CatalogFile[],
): CatalogVocabularyPart {
  const at = (index: number) => integer(fields[index], `field ${index} of the vocabulary`)
  const file = files[at(0)]
  if (file === undefined) throw new Error('a part of the vocabulary is in no file')
  return { key: file.key, part: at(1), parts: at(2), model: text(fields[3], 'model'), row: at(4) }
}

function seriesOf(
  fields: readonly unknown[],
  request: RequestEntry,
  files: readonly CatalogFile[],
): CatalogSeries {
  const at = (index: number) => integer(fields[index], `field ${index} of a series`)
  const file = files[at(0)]
  if (file === undefined) throw new Error('a series is in no file')
  const { trace_id, request_id, producer } = request
  return {
    key: file.key,
    trace_id,
    request_id,
    producer,
    row_start: at(1),
    row_end: at(2),
    hook: text(fields[3], 'hook'),
    layer: at(4),
    tp_rank: at(5),
    pp_rank: at(6),
    dp_rank: at(7),
    ep_rank: at(8),
    token_start: at(9),
    token_end: at(10),
    dtype: text(fields[11], 'dtype'),
    bytes: at(12),
  }
}
