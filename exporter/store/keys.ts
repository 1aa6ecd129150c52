/**
 * Keys of the store: how a file is called, and that no name from outside can leave its place.
 *
 *   tensors/model_slug={slug}/date=YYYY-MM-DD/hour=HH/{producer}-{ulid}.parquet
 *   requests/model_slug={slug}/date=YYYY-MM-DD/{producer}-{ulid}.parquet
 *   contexts/model_slug={slug}/date=YYYY-MM-DD/{producer}-{ulid}.parquet
 *   vocabularies/model_slug={slug}/date=YYYY-MM-DD/{producer}-{ulid}.parquet
 *   catalog/{first two of the trace id}/{trace id}/{producer}-{hash}-{hash}.json     trace indexes
 *
 * The folder is not called `model`, as the column is: readers that make columns of folders would see
 * the slug under the name's name. Stores of earlier versions have `model=` and are still read.
 *
 * Invariants: a slug is [A-Za-z0-9._-], 1 to 64 characters, and does not start with a dot, so a key
 * is never absolute, has no `..`, and no character that a shell, a glob or a URL takes specially. A
 * key and its flat name (for the spool, which has no folders) turn into each other exactly.
 */

import { createHash } from 'node:crypto'
import type { ProducerInfo } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'
import { keyLimits } from '../limits.ts'

export const datasets = ['tensors', 'requests', 'contexts', 'vocabularies'] as const

export type Dataset = (typeof datasets)[number]

const SLUG = '[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}'
const KEY = new RegExp(
  `^(?:tensors/model(?:_slug)?=${SLUG}/date=\\d{4}-\\d{2}-\\d{2}/hour=\\d{2}` +
    `|(?:requests|contexts|vocabularies)/model(?:_slug)?=${SLUG}/date=\\d{4}-\\d{2}-\\d{2})` +
    `/${SLUG}\\.parquet$`,
)
const INDEX_KEY = new RegExp(`^catalog/[0-9a-f]{2}/[0-9a-f]{32}/${SLUG}\\.json$`)
/** Stands for `/` in a flat name; no slug has it. */
const FLAT_SEPARATOR = ','
const HASH_CHARACTERS = 8

/** A name that is safe in a key. Different names may share a slug: the columns hold the name. */
export function slug(name: string): string {
  const safe = name
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replaceAll(/\.{2,}/g, '.')
    .replace(/^[.-]+/, '')
    .replace(/[.-]+$/, '')
  if (safe !== '' && safe.length <= keyLimits.slugCharactersMax) return safe
  const hash = createHash('sha256').update(name, 'utf8').digest('hex').slice(0, HASH_CHARACTERS)
  const head = safe.slice(0, keyLimits.slugCharactersMax - HASH_CHARACTERS - 1)
  return head === '' ? `name-${hash}` : `${head}-${hash}`
}

/** Name of one life of a producer, in keys and in the spool. */
export function producerSlug(producer: ProducerInfo): string {
  return `${slug(producer.segment)}-${slug(producer.boot).slice(0, keyLimits.bootCharactersMax)}`
}

/** The folder of a key: rows of one file share it. */
export function partition(dataset: Dataset, model: string, micros: number): string {
  const iso = new Date(Math.floor(micros / 1000)).toISOString()
  const folder = `${dataset}/model_slug=${slug(model)}/date=${iso.slice(0, 10)}`
  return dataset === 'tensors' ? `${folder}/hour=${iso.slice(11, 13)}` : folder
}

export function fileKey(folder: string, producer: ProducerInfo, ulid: string): string {
  return `${folder}/${producerSlug(producer)}-${ulid}.parquet`
}

export function isKey(text: string): boolean {
  return text.length <= keyLimits.keyCharactersMax && KEY.test(text) && !text.includes('..')
}

/** Whether this is the key of a trace index (trace-index.ts), which a bucket has beside the files. */
export function isIndexKey(text: string): boolean {
  return text.length <= keyLimits.keyCharactersMax && INDEX_KEY.test(text) && !text.includes('..')
}

/** What a listing of a trace's indexes begins with. */
export function indexPrefix(traceId: string): string {
  return `catalog/${traceId.slice(0, 2)}/${traceId}/`
}

/** Throws RING2_E_STORE unless the text is a key; names read back from disk are not trusted. */
export function assertKey(text: string): string {
  if (isKey(text)) return text
  throw new Ring2Error('RING2_E_STORE', {
    expected: 'a key such as tensors/model_slug=M/date=YYYY-MM-DD/hour=HH/PRODUCER-ULID.parquet',
    actual: JSON.stringify(text.slice(0, 200)),
    action: 'Remove the file with this name if the exporter did not write it.',
  })
}

export function datasetOf(key: string): Dataset {
  return datasets.find((dataset) => key.startsWith(`${dataset}/`)) ?? 'tensors'
}

export function flatName(key: string): string {
  return assertKey(key).replaceAll('/', FLAT_SEPARATOR)
}

export function keyOfFlatName(name: string): string {
  return assertKey(name.replaceAll(FLAT_SEPARATOR, '/'))
}
