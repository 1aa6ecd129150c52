/**
 * Which files of a store go, oldest first. Pure: it sees the catalogue's list of files and a time.
 *
 * A file's age is that of the newest row that it can hold: the end of its hour (tensors) or of its day
 * (requests and contexts), which its key tells. Too many bytes cost tensors alone, the oldest first;
 * what is listed of a request stays until its own age has passed. A vocabulary is needed as long as
 * there is anything else of its model.
 */

import type { CatalogFile } from '../catalog/catalog.ts'
import { type Dataset, datasetOf } from '../store/keys.ts'
import type { RetentionRules, Rule } from './rules.ts'

export type RemovalReason = 'age' | 'size'

export interface PlannedRemoval {
  readonly key: string
  readonly dataset: Dataset
  readonly bytes: number
  readonly reason: RemovalReason
}

interface AgedFile {
  readonly key: string
  readonly dataset: Dataset
  readonly bytes: number
  readonly model: string
  /** End of the hour or day of its rows, in milliseconds since the epoch. */
  readonly endMillis: number
}

const HOUR_MILLIS = 3_600_000
const DAY_MILLIS = 24 * HOUR_MILLIS
const PLACE = /\/model(?:_slug)?=([^/]+)\/date=(\d{4}-\d{2}-\d{2})\/(?:hour=(\d{2})\/)?/

/** What holds for a model: its own rule, and what that leaves open, the general one. */
function ruleOf(rules: RetentionRules, model: string) {
  const own = rules.models.find((rule) => rule.matches(model))
  if (own === undefined) return { ageMillis: rules.general.ageMillis, bytesMax: null, keep: false }
  if (own.keep) return { ageMillis: null, bytesMax: null, keep: true }
  return { ...own, ageMillis: own.ageMillis ?? rules.general.ageMillis }
}

/** Up to when rows of a model are too old, in milliseconds since the epoch; null when never. */
export function expiredBefore(
  rules: RetentionRules,
  model: string,
  nowMillis: number,
): number | null {
  const { ageMillis } = ruleOf(rules, model)
  return ageMillis === null ? null : nowMillis - ageMillis
}

export function planRetention(
  files: readonly CatalogFile[],
  rules: RetentionRules,
  nowMillis: number,
): PlannedRemoval[] {
  const left = new Map<string, AgedFile[]>()
  const removals = new Map<AgedFile, RemovalReason>()
  for (const [model, group] of Map.groupBy(files.flatMap(agedFile), (file) => file.model)) {
    group.sort(oldestFirst)
    const rule = ruleOf(rules, model)
    const staying = expire(group, rule, nowMillis, removals)
    left.set(model, shrink(staying, rule.bytesMax, removals))
  }
  const { bytesMax } = rules.general
  const takeable = [...left].filter(([model]) => !ruleOf(rules, model).keep)
  const kept = sum([...left].flatMap(([model, group]) => (ruleOf(rules, model).keep ? group : [])))
  const others = takeable.flatMap(([, group]) => group).sort(oldestFirst)
  shrink(others, bytesMax === null ? null : bytesMax - kept, removals)
  return [...removals]
    .sort(([one], [other]) => oldestFirst(one, other))
    .map(([{ key, dataset, bytes }, reason]) => ({ key, dataset, bytes, reason }))
}

/** Notes what is too old and returns the rest. */
function expire(
  group: readonly AgedFile[],
  { ageMillis }: Pick<Rule, 'ageMillis'>,
  nowMillis: number,
  removals: Map<AgedFile, RemovalReason>,
): AgedFile[] {
  if (ageMillis === null) return [...group]
  const isYoung = (file: AgedFile) => file.endMillis > nowMillis - ageMillis
  const needed = group.some((file) => file.dataset !== 'vocabularies' && isYoung(file))
  return group.filter((file) => {
    if (isYoung(file) || (needed && file.dataset === 'vocabularies')) return true
    removals.set(file, 'age')
    return false
  })
}

/** Notes the oldest tensors until the rest fits, and returns the rest. */
function shrink(
  group: readonly AgedFile[],
  bytesMax: number | null,
  removals: Map<AgedFile, RemovalReason>,
): AgedFile[] {
  if (bytesMax === null) return [...group]
  let bytes = sum(group)
  return group.filter((file) => {
    if (bytes <= bytesMax || file.dataset !== 'tensors') return true
    bytes -= file.bytes
    removals.set(file, 'size')
    return false
  })
}

function agedFile({ key, bytes }: CatalogFile): AgedFile[] {
  const [, model, date, hour] = PLACE.exec(key) ?? []
  const start = Date.parse(`${date}T${hour ?? '00'}:00:00Z`)
  // A key that tells no time is no file of ours.
  if (model === undefined || !Number.isFinite(start)) return []
  const endMillis = start + (hour === undefined ? DAY_MILLIS : HOUR_MILLIS)
  return [{ key, dataset: datasetOf(key), bytes, model, endMillis }]
}

function oldestFirst(one: AgedFile, other: AgedFile): number {
  // Files of one hour were written in the order of the ULIDs that their keys end with.
  return (
    one.endMillis - other.endMillis ||
    compareText(one.key.slice(-ULID_AND_SUFFIX), other.key.slice(-ULID_AND_SUFFIX)) ||
    compareText(one.key, other.key)
  )
}

const ULID_AND_SUFFIX = 26 + '.parquet'.length

function compareText(one: string, other: string): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}

function sum(files: readonly AgedFile[]): number {
  return files.reduce((total, file) => total + file.bytes, 0)
}
