/**
 * The rules of retention as the configuration gives them: ages, sizes, and rules by model. Pure.
 *
 * A model is known to a file by the slug of its name in the file's key (store/keys.ts), so a pattern
 * is compared with slugs: every run of characters outside [A-Za-z0-9._-] counts as `-` on both sides.
 */

import type { Config } from '../config.ts'
import { Ring2Error } from '../errors.ts'

export interface Rule {
  /** Null: no file is too old. */
  readonly ageMillis: number | null
  /** Null: there are never too many bytes. */
  readonly bytesMax: number | null
}

export interface ModelRule extends Rule {
  readonly matches: (slug: string) => boolean
  /** Nothing of the model is removed, whatever the general rule says. */
  readonly keep: boolean
}

export interface RetentionRules {
  readonly general: Rule
  /** The first one that fits a model counts. */
  readonly models: readonly ModelRule[]
}

const HOUR_MILLIS = 3_600_000
const unitsOfAge: Readonly<Record<string, number>> = {
  h: HOUR_MILLIS,
  d: 24 * HOUR_MILLIS,
  w: 7 * 24 * HOUR_MILLIS,
}
const unitsOfSize: Readonly<Record<string, number>> = {
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

/** Null when nothing is ever removed. Throws RING2_E_CONFIG for a rule that says nothing. */
export function readRules({ retention }: Config): RetentionRules | null {
  const { max_age: age, max_bytes: bytes, models } = retention
  const general = {
    ageMillis: age === undefined ? null : ageOf(age),
    bytesMax: bytes === undefined ? null : sizeOf(bytes),
  }
  if (general.ageMillis === null && general.bytesMax === null && models.length === 0) return null
  return { general, models: models.map(modelRule) }
}

function modelRule(text: string): ModelRule {
  // A model's name may have the character itself; what follows the last one has not.
  const at = text.lastIndexOf('=')
  const parts = text.slice(at + 1).split(' ')
  const age = parts.find((part) => /[hdw]$/.test(part))
  const size = parts.find((part) => /[0-9B]$/.test(part))
  const keep = parts.includes('keep')
  if (at < 1 || (age === undefined && size === undefined && !keep)) throw badRule(text)
  return {
    matches: slugPattern(text.slice(0, at)),
    keep,
    ageMillis: age === undefined ? null : ageOf(age),
    bytesMax: size === undefined ? null : sizeOf(size),
  }
}

function ageOf(text: string): number {
  const unit = unitsOfAge[text.slice(-1)]
  const count = Number(text.slice(0, -1))
  if (unit === undefined || !Number.isSafeInteger(count) || count < 1) throw badRule(text)
  return count * unit
}

function sizeOf(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)([KMGT]iB)?$/.exec(text) ?? []
  const bytes = Number(digits) * (unitsOfSize[unit] ?? 1)
  if (digits === '' || !Number.isSafeInteger(bytes) || bytes < 1) throw badRule(text)
  return bytes
}

function badRule(text: string): Ring2Error {
  return new Ring2Error('RING2_E_CONFIG', {
    expected: 'an age such as 30d, a size such as 50GiB, or a rule such as org/*=7d 50GiB',
    actual: JSON.stringify(text.slice(0, 200)),
  })
}

/** `*` stands for any characters, `?` for one. */
function slugPattern(pattern: string): (slug: string) => boolean {
  const source = pattern
    .replaceAll(/[^A-Za-z0-9._*?-]+/g, '-')
    .replaceAll('.', '\\.')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  const expression = new RegExp(`^${source}$`)
  return (slug) => expression.test(slug)
}
