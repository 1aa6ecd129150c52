/** Reads the `*_tokens.json` that STRAP-LLM writes beside a capture whose tokens it followed. */

import { readFileSync, statSync } from 'node:fs'
import { Ring2Error } from '../errors.ts'
import { importLimits } from '../limits.ts'
import { unreadable } from './stream-file.ts'

export interface TokenFile {
  /** Position of the first id. */
  readonly first: number
  readonly ids: readonly number[]
  readonly durationMicros: number
}

const MICROS = 1_000_000
const ID_MAX = 2 ** 31 - 1

/**
 * @throws Ring2Error RING2_E_IMPORT for a file of another form, or whose positions are not one after
 *   the other, and for one that cannot be read.
 */
export function readTokenFile(path: string): TokenFile {
  const document = parse(path)
  const tokens = fieldOf(document, 'tokens')
  if (!Array.isArray(tokens) || tokens.length > importLimits.tokensMax) {
    throw unlike(path, `at most ${importLimits.tokensMax} tokens in "tokens"`, 'something else')
  }
  const first = tokens.length === 0 ? 0 : numberOf(path, tokens[0], 'token_index')
  const ids = tokens.map((token: unknown, index) => {
    const position = numberOf(path, token, 'token_index')
    if (position !== first + index) {
      throw unlike(path, `token_index ${first + index} after ${first + index - 1}`, `${position}`)
    }
    return numberOf(path, token, 'token_id')
  })
  const seconds = Number(fieldOf(document, 'capture_duration_seconds') ?? 0)
  const durationMicros = seconds > 0 && seconds < MICROS ? Math.round(seconds * MICROS) : 0
  return { first, ids, durationMicros }
}

function parse(path: string): unknown {
  let text: string
  try {
    const { size } = statSync(path)
    if (size > importLimits.tokensFileBytesMax) {
      throw unlike(path, `at most ${importLimits.tokensFileBytesMax} bytes`, `${size}`)
    }
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw error instanceof Ring2Error ? error : unreadable('the tokens file', path, error)
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw unlike(path, 'JSON', error instanceof Error ? error.message : 'something else')
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && name in value
    ? (value as Record<string, unknown>)[name]
    : undefined
}

function numberOf(path: string, token: unknown, name: string): number {
  const value = fieldOf(token, name)
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= ID_MAX) {
    return value
  }
  throw unlike(path, `a ${name} from 0 to ${ID_MAX} in each token`, JSON.stringify(value) ?? 'none')
}

function unlike(path: string, expected: string, actual: string): Ring2Error {
  return new Ring2Error('RING2_E_IMPORT', { expected: `${expected} in ${path}`, actual })
}
