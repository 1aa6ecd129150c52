/**
 * What a user asks for: a trace id, a token range, heads, a rank. Texts from outside become values
 * here, and nowhere else; whatever does not fit is an error that names the form.
 */

import { type Verdict, verdicts } from '../../collector/records.ts'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'

/** Half open. */
export interface TokenRange {
  readonly start: number
  readonly end: number
}

export interface RankFilter {
  readonly tp?: number
  readonly pp?: number
  readonly dp?: number
  readonly ep?: number
}

/** Which tensor, and which part of it. */
export interface TensorQuery {
  readonly traceId: string
  /** Needed only when the trace has several requests with this tensor. */
  readonly requestId: string | null
  /** Needed only when several producers have this tensor of one request; null is none. */
  readonly producer?: string | null
  readonly hook: string
  /** −1 for a hook of the whole model. */
  readonly layer: number
  readonly rank: RankFilter | null
  readonly tokens: TokenRange | null
  readonly heads: readonly number[] | null
}

/** Layer of hooks that belong to no layer. */
export const GLOBAL_LAYER = -1

const TRACE_ID = /^[0-9a-f]{32}$/
const HOOK = /^[a-z0-9_]{1,64}$/
/** Names that only the Python package takes, and what they mean. */
const hookAliases: ReadonlyMap<string, string> = new Map([
  ['hidden-states', 'resid_pre'],
  ['hidden_states', 'resid_pre'],
  ['logits', 'final_logits'],
  ['token-ids', 'token_ids'],
])
const TOKENS = /^(\d{1,9})?:(\d{1,9})?$/
const HEADS_MAX = 4096
const TOKEN_MAX = 2 ** 31 - 1

/** 32 hexadecimal digits, not all zero; in lower case, as they are stored. */
export function parseTraceId(value: string): string {
  const lower = value.toLowerCase()
  if (TRACE_ID.test(lower) && !/^0+$/.test(lower)) return lower
  throw new Ring2Error('RING2_E_TRACE_ID', {
    expected: '32 hexadecimal digits, not all zero',
    actual: quote(value),
  })
}

export function parseHook(value: string): string {
  const meant = hookAliases.get(value)
  if (meant !== undefined) throw query(`${meant}, the hook that ${value} is an alias of`, value)
  if (HOOK.test(value)) return value
  throw query('a hook name such as resid_pre', value)
}

/** A layer number, or `global` (or −1) for a hook of the whole model. */
export function parseLayer(value: string): number {
  if (value === 'global' || value === '-1') return GLOBAL_LAYER
  if (/^\d{1,5}$/.test(value)) return Number(value)
  throw query('a layer number, or "global" for a hook without layers', value)
}

/** `a:b`, `a:`, `:b`: logical token positions, half open. */
export function parseTokens(value: string): TokenRange {
  const match = TOKENS.exec(value)
  const start = Number(match?.[1] ?? 0)
  const end = Number(match?.[2] ?? TOKEN_MAX)
  if (match !== null && value !== ':' && start < end) return { start, end }
  throw query('tokens=a:b with 0 ≤ a < b; either may be left out', value)
}

/** `0,3,5:8`: head indices and half-open ranges, in the order of the answer. */
export function parseHeads(value: string): readonly number[] {
  const heads: number[] = []
  for (const part of value.split(',')) {
    const match = /^(\d{1,4})(?::(\d{1,4}))?$/.exec(part)
    const start = Number(match?.[1])
    const end = match?.[2] === undefined ? start + 1 : Number(match[2])
    if (match === null || start >= end || end > HEADS_MAX) throw badHeads(value)
    for (let head = start; head < end; head += 1) heads.push(head)
    if (heads.length > HEADS_MAX) throw badHeads(value)
  }
  if (new Set(heads).size !== heads.length) throw badHeads(value)
  return heads
}

function badHeads(value: string): Ring2Error {
  return query(`heads such as 0,3,5:8, each once and below ${HEADS_MAX}`, value)
}

/** `2` is the tensor-parallel rank; `tp:0,pp:1` names any of tp, pp, dp and ep. */
export function parseRank(value: string): RankFilter {
  if (/^\d{1,5}$/.test(value)) return { tp: Number(value) }
  const filter: Record<string, number> = {}
  for (const part of value.split(',')) {
    const match = /^(tp|pp|dp|ep):(\d{1,5})$/.exec(part)
    const axis = match?.[1]
    if (axis === undefined || axis in filter) {
      throw query('rank=N (tensor parallel), or rank=tp:0,pp:1', value)
    }
    filter[axis] = Number(match?.[2])
  }
  return filter
}

/** A duration before now (`1h`, `30m`, `7d`), or a time in ISO 8601; in microseconds. */
export function parseSince(value: string, nowMillis: number): number {
  const units: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }
  const match = /^(\d{1,6})([smhd])$/.exec(value)
  const unit = units[match?.[2] ?? '']
  if (match !== null && unit !== undefined) {
    return Math.floor((nowMillis - Number(match[1]) * unit * 1000) * 1000)
  }
  const millis = /^\d{4}-\d{2}-\d{2}(T|$)/.test(value) ? Date.parse(value) : Number.NaN
  if (Number.isFinite(millis)) return millis * 1000
  throw query('since=1h (s, m, h, d), or a time such as 2026-01-31T12:00:00Z', value)
}

/** How many requests a page has. */
export function parseLimit(value: string): number {
  const limit = /^\d{1,4}$/.test(value) ? Number(value) : 0
  if (limit >= 1 && limit <= catalogLimits.pageRowsMax) return limit
  throw query(`limit from 1 to ${catalogLimits.pageRowsMax}`, value)
}

export function parseVerdict(value: string): Verdict {
  const verdict = verdicts.find((known) => known === value)
  if (verdict !== undefined) return verdict
  throw query(`a verdict: ${verdicts.join(', ')}`, value)
}

function query(expected: string, value: string): Ring2Error {
  return new Ring2Error('RING2_E_QUERY', { expected, actual: quote(value) })
}

function quote(value: string): string {
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
}
