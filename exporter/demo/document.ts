/**
 * What the demo tells: of each request, and of what the servers had that watched. The JSON document, and
 * the facts that the page for a terminal (report.ts) is made from.
 */
import type { AlertsEvidence } from './alerts.ts'
import type { Answer, Loss, StoredRequest } from './client.ts'
import type { JaegerEvidence } from './jaeger.ts'
import type { Links } from './links.ts'
import type { PrometheusEvidence } from './prometheus.ts'
import type { Verified } from './verify.ts'

export interface StackEvidence {
  readonly jaeger: JaegerEvidence
  readonly prometheus: PrometheusEvidence
  readonly alerts: AlertsEvidence
}

export interface DemoRequest {
  readonly trace_id: string
  readonly request_id: string
  readonly tokens: number
  readonly prompt_tokens: number
  readonly completion_tokens: number
  /** nat; mean over the logits rows the model computed. */
  readonly entropy: number | null
  readonly top1_probability: number | null
  /** Mean over layers, heads and queries of the attention mass on the first key. */
  readonly sink_mass: number | null
  /** Mean L2 norm of the residual stream entering each layer. */
  readonly norms: readonly (number | null)[]
  readonly verdict: string
  readonly completeness: string
  readonly tensors: number
  readonly bytes: number
  readonly text: string
}

/** With the stack: six healthy requests, then those of the broken model; and what the servers have. */
export interface DemoDocument extends Partial<StackEvidence> {
  readonly requests: readonly DemoRequest[]
  readonly store: string
  readonly verified: Verified
  readonly losses: readonly Loss[]
  readonly seconds: number
  /** Where everything goes on; only when it does. */
  readonly links?: Links
}

function mean(values: readonly (number | null)[] | undefined): number | null {
  const known = (values ?? []).filter((value) => value !== null)
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length
}

export function describeRequest(answer: Answer, stored: StoredRequest): DemoRequest {
  const layers = stored.details?.statistics.layers ?? {}
  const globals = stored.details?.statistics.globals ?? {}
  return {
    trace_id: answer.traceId,
    request_id: answer.requestId,
    tokens: stored.tokens,
    prompt_tokens: answer.promptTokens,
    completion_tokens: answer.completionTokens,
    entropy: globals['final_logits.entropy_mean'] ?? null,
    top1_probability: globals['final_logits.top1_probability_mean'] ?? null,
    sink_mass: mean(layers['pattern.sink_mass']),
    norms: layers['resid_pre.l2_mean'] ?? [],
    verdict: stored.verdict,
    completeness: stored.completeness,
    tensors: stored.tensors_stored,
    bytes: stored.bytes_stored,
    text: answer.text,
  }
}

export interface Page {
  readonly document: DemoDocument
  /** The trace that is shown as a tree, and to fetch from. */
  readonly shown: string
  readonly traceLines: readonly string[]
  readonly links: Links
  /** Whether the processes go on. */
  readonly running: boolean
}
