/** `ring2-exporter ls TRACE_ID`: a trace's requests, and which tensors each has, by the catalogue. */
import type { RequestSummary } from '../../collector/records.ts'
import type { Catalog, CatalogSeries } from '../catalog/catalog.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import { producersOf } from '../catalog/parallel.ts'
import { findingText } from '../finding-text.ts'
import { unknownTrace } from '../tensors/series-choice.ts'
import { bytesText, styles, table } from './table.ts'

/** One hook of one request. Global hooks have no layers. */
export interface HeldHook {
  readonly hook: string
  readonly layers: readonly number[]
  readonly dtype: string
  /** Payload, over all layers, steps and ranks. */
  readonly bytes: number
}

export interface HeldRequest {
  readonly request: CatalogRequest
  readonly hooks: readonly HeldHook[]
}

/** @throws Ring2Error RING2_E_TRACE_UNKNOWN when the store keeps nothing of the trace. */
export function heldOf(catalog: Catalog, traceId: string): HeldRequest[] {
  const requests = catalog.requests(traceId)
  if (requests.length === 0) throw unknownTrace(traceId)
  return requests.map((request) => {
    const series = catalog.series({ traceId, requestId: request.request_id })
    const producers = producersOf(request)
    return { request, hooks: hooksOf(series.filter((one) => producers.has(one.producer))) }
  })
}

function hooksOf(series: readonly CatalogSeries[]): HeldHook[] {
  const groups = Map.groupBy(series, ({ hook, dtype }) => JSON.stringify([hook, dtype]))
  return [...groups.values()].flatMap((group) => {
    const [first] = group
    if (first === undefined) return []
    const layers = new Set(group.map(({ layer }) => layer).filter((layer) => layer >= 0))
    return [
      {
        hook: first.hook,
        layers: [...layers].sort((left, right) => left - right),
        dtype: first.dtype,
        bytes: group.reduce((sum, { bytes }) => sum + bytes, 0),
      },
    ]
  })
}

/** What the rules said of each request: findings, and what was missing to call it ok. */
export function verdictLines(held: readonly HeldRequest[]): string[] {
  return held.flatMap(({ request }) => {
    const { findings = [], missingEvidence = [], baseline = 'default' } = verdictOf(request)
    return [
      `${request.request_id}  ${request.verdict} (${baseline} bounds)`,
      ...findings.map((finding) => `  ${findingText(finding)}`),
      ...missingEvidence.map((reason) => `  missing: ${reason}`),
    ]
  })
}

/** A request that has not ended, or an older store's, has none of it. */
function verdictOf({ summary }: CatalogRequest): Partial<RequestSummary> {
  return summary === null ? {} : JSON.parse(summary)
}

export function heldTable(held: readonly HeldRequest[]): string {
  return table(
    [
      { title: 'REQUEST' },
      { title: 'HOOK' },
      { title: 'LAYERS' },
      { title: 'DTYPE' },
      { title: 'BYTES', right: true },
    ],
    held.flatMap(({ request, hooks }) =>
      hooks.length === 0
        ? [[request.request_id, 'none', '–', '–', bytesText(0)]]
        : hooks.map(({ hook, layers, dtype, bytes }) => [
            request.request_id,
            hook,
            layersText(layers),
            dtype,
            bytesText(bytes),
          ]),
    ),
    styles().bold,
  )
}

/** `0-3, 7`: layers in order, runs with their first and last. `–` for a global hook. */
function layersText(layers: readonly number[]): string {
  const runs: { first: number; last: number }[] = []
  for (const layer of layers) {
    const run = runs.at(-1)
    if (run !== undefined && run.last + 1 === layer) run.last = layer
    else runs.push({ first: layer, last: layer })
  }
  const texts = runs.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`))
  return texts.join(', ') || '–'
}
