/**
 * Conditional and partial answers: If-None-Match, and Range with one range (RFC 9110 §13, §14).
 * A Range header that is not understood is ignored, as the RFC asks.
 */

export interface ByteRange {
  readonly start: number
  /** Exclusive. */
  readonly end: number
}

/** Whether the caller already has the answer. Weak comparison: a tag's `W/` does not count. */
export function hasTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false
  if (header.trim() === '*') return true
  return header.split(',').some((one) => one.trim().replace(/^W\//, '') === tag)
}

/**
 * The range asked for, `all` without one, or `unsatisfiable` when it starts beyond the end.
 *
 * @param condition If-Range: the range counts only when the caller's part is of this answer.
 */
export function parseByteRange(
  header: string | undefined,
  condition: string | undefined,
  tag: string,
  bytes: number,
): ByteRange | 'all' | 'unsatisfiable' {
  if (header === undefined || (condition !== undefined && condition.trim() !== tag)) return 'all'
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim())
  const [, first = '', last = ''] = match ?? []
  if (match === null || (first === '' && last === '')) return 'all'
  if (first === '') {
    const length = Math.min(Number(last), bytes)
    return length === 0 ? 'unsatisfiable' : { start: bytes - length, end: bytes }
  }
  const start = Number(first)
  const end = last === '' ? bytes : Math.min(Number(last) + 1, bytes)
  if (last !== '' && Number(last) < start) return 'all'
  return start < bytes ? { start, end } : 'unsatisfiable'
}
