/**
 * What the API is given; it opens nothing itself.
 */

import type { Logger } from 'pino'
import type { PolicyKeeper } from '../capture-policy.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { TraceFinder } from '../catalog/trace-finder.ts'
import type { ContextBatch } from '../pipeline/messages.ts'
import type { TensorReader } from '../tensors/reader.ts'
import type { VocabularySource } from '../views/views.ts'
import type { DeleteTrace } from './deletion.ts'

export interface HealthCheck {
  readonly name: string
  readonly ok: boolean
  /** In words, e.g. `queue: 12 files wait for upload`. */
  readonly detail: string
}

export interface Health {
  /** False when the process cannot do its work any more and should be restarted. */
  readonly alive: boolean
  /** False while it starts or cannot take data, e.g. a store that refuses writes. */
  readonly ready: boolean
  readonly checks: readonly HealthCheck[]
}

export interface ServerDependencies {
  readonly catalog: Catalog
  readonly reader: TensorReader
  /** Brings what others stored of a trace into the catalogue; left out, it knows all there is. */
  readonly findTrace?: TraceFinder['find']
  /** Texts of token ids; left out, views know none. */
  readonly vocabularies?: VocabularySource
  /** The live segments, as JSON. */
  readonly rings: () => unknown
  /** The page of /metrics and its Content-Type, by the scraper's Accept header. */
  readonly metrics: (accept: string | undefined) => Promise<MetricsPage> | MetricsPage
  readonly health: () => Health
  /**
   * Takes trace contexts that came as spans; false while it cannot. Left out, spans are not taken.
   */
  readonly tap?: (batch: ContextBatch) => boolean
  /** What is captured; left out, there is no such route. */
  readonly policy?: Pick<PolicyKeeper, 'get' | 'set'>
  /** Removes a trace for good; left out, there is no such route. */
  readonly deleteTrace?: DeleteTrace
  /** Bearer token that data routes ask for; null asks for none. */
  readonly token: string | null
  /** Memory of tensors being sent; default: `answerLimits.bytesInFlightMax`. */
  readonly answerBytesInFlightMax?: number
  /** When a client is dropped that takes nothing; default: `answerLimits.stalledMillisMax`. */
  readonly stalledMillisMax?: number
  /** Folder of the built explorer; left out or empty, a plain page says what builds it. */
  readonly explorer?: string
  /** Where the tensors are, as commands that are copied from the explorer name it. */
  readonly storeUrl?: string
  /** Version shown in /openapi.json. */
  readonly version: string
  /** Where others reach the API, without a slash at the end; asked for once it listens. */
  readonly baseUrl: () => string
  /** Null logs nothing. */
  readonly logger: Logger | null
  /** Milliseconds since the epoch; tests set it. */
  readonly now?: () => number
}

export interface MetricsPage {
  readonly contentType: string
  readonly body: string
}
