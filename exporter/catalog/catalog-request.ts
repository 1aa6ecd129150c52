/** A row of the catalogue's requests. Types alone. */
import type { RequestEntry } from './description.ts'

/** A request as the catalogue knows it. */
export interface CatalogRequest extends Omit<RequestEntry, 'summary'> {
  /** Microseconds since the epoch; null while no summary has come, like all that comes with it. */
  readonly ended_at: number | null
  /** The caller's trace, where its context came after the rows were stored; else null. */
  readonly caller_trace_id: string | null
  readonly tokens: number | null
  readonly prompt_tokens: number | null
  readonly steps: number | null
  readonly verdict: string
  readonly completeness: string
  /** Payload bytes and rows that the store holds of it. */
  readonly bytes_stored: number
  readonly tensors_stored: number
  /** JSON of the RequestSummary. */
  readonly summary: string | null
}
