/** Times as OpenTelemetry's SDK writes them. */

import type { HrTime } from '@opentelemetry/api'

const MICROS_PER_SECOND = 1_000_000

/** Micros since the epoch as the SDK's pair of seconds and nanoseconds. */
export function hrTimeOf(micros: number): HrTime {
  const seconds = Math.floor(micros / MICROS_PER_SECOND)
  return [seconds, Math.round((micros - seconds * MICROS_PER_SECOND) * 1000)]
}
