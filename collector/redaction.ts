/**
 * Leaves the values of some request attributes out, and says what stands for a payload. Pure.
 *
 * It is done before anything else sees them, so no file, span, checkpoint or answer has them. Payloads
 * are left out where rows are delivered (drain.ts, and the exporter's import).
 */
import { type AttributeValue, REDACTED_ENCODING, type RequestInfo } from './records.ts'

/** Stands for the value of a redacted attribute. */
export const REDACTED = 'redacted'

/** Of a row whose payload is left out: a checksum of few elements would give them away. */
export const withoutPayload = {
  encoding: REDACTED_ENCODING,
  crc32c: 0,
  data: new Uint8Array(0),
} as const

/**
 * Replaces the values of attributes whose key fits one of the patterns; `*` stands for any characters,
 * `?` for one. The keys stay.
 */
export function createAttributeRedaction(
  patterns: readonly string[],
): (request: RequestInfo) => RequestInfo {
  if (patterns.length === 0) return (request) => request
  const expressions = patterns.map(
    (pattern) =>
      new RegExp(
        `^${pattern
          .replaceAll(/[\\^$.|+()[\]{}]/g, '\\$&')
          .replaceAll('*', '.*')
          .replaceAll('?', '.')}$`,
        's',
      ),
  )
  const fits = (key: string) => expressions.some((expression) => expression.test(key))
  return (request) => {
    const entries = Object.entries(request.attributes)
    if (!entries.some(([key]) => fits(key))) return request
    const attributes: Record<string, AttributeValue> = {}
    for (const [key, value] of entries) attributes[key] = fits(key) ? REDACTED : value
    return { ...request, attributes }
  }
}
