/**
 * The dataset `vocabularies`: the texts of a model's token ids, in parts, each a row. Found by
 * fingerprint through the catalogue; a vocabulary is used only when every part is there and its
 * texts are those that the fingerprint names.
 *
 * Not here: which request has which vocabulary is in its summary; where a part lies, in the catalogue.
 */

import { createHash } from 'node:crypto'
import type { ProducerInfo, RequestSummary, VocabularyPart } from '../../collector/records.ts'
import type { Catalog, CatalogVocabularyPart } from '../catalog/catalog.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import type { FileDescription, FileFacts, VocabularyEntry } from '../catalog/description.ts'
import { Ring2Error } from '../errors.ts'
import { vocabularyLimits } from '../limits.ts'
import type { ParquetRow, ParquetSource } from '../parquet/parquet-source.ts'
import { type Column, producerLabel } from '../parquet/schema.ts'
import { integer, text } from './records.ts'

/** A part that waits to be stored. */
export interface PendingVocabulary {
  readonly part: VocabularyPart
  readonly producer: ProducerInfo
  readonly atMicros: number
}

type Row = PendingVocabulary

const plain = { nullable: false, bloomFilter: false } as const

export const vocabularyColumns: readonly Column<Row>[] = [
  { name: 'fingerprint', type: 'string', ...plain, value: ({ part }) => part.fingerprint },
  { name: 'model', type: 'string', ...plain, value: ({ part }) => part.model },
  { name: 'part', type: 'int32', ...plain, value: ({ part }) => part.part },
  { name: 'parts', type: 'int32', ...plain, value: ({ part }) => part.parts },
  { name: 'first_id', type: 'int32', ...plain, value: ({ part }) => part.firstId },
  // As JSON, because a list of texts is what few small readers can write and read back.
  { name: 'texts', type: 'string', ...plain, value: ({ part }) => JSON.stringify(part.texts) },
  { name: 'producer', type: 'string', ...plain, value: ({ producer }) => producerLabel(producer) },
  { name: 'host', type: 'string', ...plain, value: ({ producer }) => producer.host },
  { name: 'captured_at', type: 'timestamp', ...plain, value: ({ atMicros }) => atMicros },
]

/** Describes a file of parts, in file order. */
export function describeVocabularies(
  file: FileFacts,
  entries: readonly VocabularyEntry[],
): FileDescription {
  const none = { series: [], requests: [] }
  return { ...file, dataset: 'vocabularies', rows: entries.length, ...none, vocabularies: entries }
}

export function vocabularyEntry({ part }: PendingVocabulary, row: number): VocabularyEntry {
  const { fingerprint, model, parts } = part
  return { fingerprint, part: part.part, parts, model, row }
}

/** The entries of a stored file, for a catalogue that is made again. */
export async function readVocabularyEntries(
  source: ParquetSource,
  key: string,
  rows: number,
): Promise<VocabularyEntry[]> {
  const read = await source.read(key, ['fingerprint', 'model', 'part', 'parts'], 0, rows)
  return read.map((row, index) => ({
    fingerprint: text(row, 'fingerprint'),
    model: text(row, 'model'),
    part: integer(row, 'part'),
    parts: integer(row, 'parts'),
    row: index,
  }))
}

export interface StoredVocabulary {
  /** Null for an id that it does not have, or that has no text. */
  text(id: number): string | null
}

export interface VocabularyReader {
  /** The fingerprint of a request's vocabulary, when all of its parts are stored; else null. */
  find(request: CatalogRequest): string | null
  /** @throws Ring2Error RING2_E_STORE when the stored texts are not those of the fingerprint. */
  open(fingerprint: string): Promise<StoredVocabulary>
}

/** Keeps the texts of the vocabularies used last. */
export function createVocabularyReader(catalog: Catalog, source: ParquetSource): VocabularyReader {
  // Insertion order is age.
  const opened = new Map<string, Promise<StoredVocabulary>>()

  function open(fingerprint: string): Promise<StoredVocabulary> {
    const known = opened.get(fingerprint) ?? read(fingerprint)
    opened.delete(fingerprint)
    opened.set(fingerprint, known)
    known.catch(() => opened.delete(fingerprint))
    const oldest = opened.keys().next().value
    if (opened.size > vocabularyLimits.openMax && oldest !== undefined) opened.delete(oldest)
    return known
  }

  async function read(fingerprint: string): Promise<StoredVocabulary> {
    const texts: (string | null)[] = []
    const hash = createHash('sha256')
    for (const place of catalog.vocabulary(fingerprint)) {
      const columns = ['fingerprint', 'part', 'first_id', 'texts']
      const [row] = await source.read(place.key, columns, place.row, place.row + 1)
      const part = textsOf(row ?? {}, place, fingerprint)
      if (integer(row ?? {}, 'first_id') !== texts.length) {
        throw damaged(place, `texts from id ${texts.length} on`)
      }
      for (const one of part) {
        hash.update(hashed(one))
        texts.push(one)
      }
    }
    if (hash.digest('hex') !== fingerprint) {
      throw new Ring2Error('RING2_E_STORE', {
        expected: `the texts of vocabulary ${fingerprint}`,
        actual: `${texts.length} texts with another fingerprint`,
        action: 'Remove its files and attach the model with its tokenizer again.',
      })
    }
    return { text: (id) => texts[id] ?? null }
  }

  return { find: (request) => findVocabulary(catalog, request), open }
}

/** What of a text goes into the fingerprint: see VOCABULARY in native/README.md. */
function hashed(one: string | null): Buffer {
  if (one === null) return Buffer.from('-:')
  const bytes = Buffer.from(one)
  return Buffer.concat([Buffer.from(`${bytes.length}:`), bytes])
}

function findVocabulary(catalog: Catalog, request: CatalogRequest): string | null {
  if (request.summary === null) return null
  const summary: RequestSummary = JSON.parse(request.summary)
  const fingerprint = summary.model.vocabularyFingerprint
  if (fingerprint === undefined) return null
  const places = catalog.vocabulary(fingerprint)
  return places.length > 0 && places.length === places[0]?.parts ? fingerprint : null
}

function textsOf(
  row: ParquetRow,
  place: CatalogVocabularyPart,
  fingerprint: string,
): (string | null)[] {
  if (text(row, 'fingerprint') !== fingerprint || integer(row, 'part') !== place.part) {
    throw damaged(place, `part ${place.part} of vocabulary ${fingerprint}`)
  }
  const texts: unknown = JSON.parse(text(row, 'texts'))
  const valid = (one: unknown): one is string | null => one === null || typeof one === 'string'
  if (Array.isArray(texts) && texts.every(valid)) return texts
  throw damaged(place, 'a list of texts')
}

function damaged(place: CatalogVocabularyPart, expected: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `${expected} in row ${place.row} of ${place.key}`,
    actual: 'something else',
    action: 'The catalogue is stale: run `ring2-exporter catalog rebuild`.',
  })
}

/** Whether a part is new to the catalogue: each is stored once. */
export function isNewPart(catalog: Catalog, { part }: PendingVocabulary): boolean {
  return !catalog.vocabulary(part.fingerprint).some((place) => place.part === part.part)
}
