/**
 * The demo's requests, with or without servers to watch them: what the exporter stored of them, and one
 * stored tensor compared with what the model process itself held.
 */
import { join } from 'node:path'
import { type Answer, type Ask, chat, fetchNpy, readLosses, waitForRequest } from './client.ts'
import { conversations } from './conversations.ts'
import { type DemoDocument, type DemoRequest, describeRequest } from './document.ts'
import { heldFolder, modelFolder, type Parts, python } from './parts.ts'
import { verify, verifyWithTransformers } from './verify.ts'

export interface Served {
  /** Of the exporter. */
  readonly api: string
  /** Asks the model that runs. */
  readonly ask: Ask
}

const verifiedHook = 'resid_pre'

/** Asks, and waits until the exporter has stored everything. */
export async function askAll(
  served: Served,
  groups: readonly (readonly string[])[],
  onProgress: (text: string) => void,
): Promise<{ answers: Answer[]; requests: DemoRequest[] }> {
  const answers = await chat(served.ask, groups, (answer) =>
    onProgress(`  ${answer.question}\n    ${answer.text.trim().replaceAll('\n', ' / ')}`),
  )
  const requests = []
  for (const answer of answers) {
    requests.push(describeRequest(answer, await waitForRequest(served.api, answer)))
  }
  return { answers, requests }
}

/** Six requests to the healthy model. */
export async function healthyRequests(
  served: Served,
  onProgress: (text: string) => void,
): Promise<{ requests: DemoRequest[]; first: Answer; last: Answer }> {
  onProgress('sending six chat requests …')
  const { answers, requests } = await askAll(served, conversations, onProgress)
  const [first, last] = [answers.at(0), answers.at(-1)]
  if (first === undefined || last === undefined) throw new Error('the demo sent no request')
  return { requests, first, last }
}

/**
 * Which of them is compared. An engine with a cache of prompts computes only what is new in later ones,
 * and what Transformers computes begins at the first token.
 */
export function comparedOf(
  { first, last }: { readonly first: Answer; readonly last: Answer },
  tolerance: number | null,
): Answer {
  return tolerance === null ? last : first
}

/** Compares one tensor of a request, from the middle of the model, and reads what was lost so far. */
export async function checkStored(
  parts: Parts,
  { api }: Pick<Served, 'api'>,
  { traceId, requestId }: Answer,
  layers: number,
  tolerance: number | null,
): Promise<Pick<DemoDocument, 'verified' | 'losses'>> {
  const layer = Math.floor(layers / 2)
  const what = { hook: verifiedHook, layer, trace_id: traceId, request_id: requestId }
  const fetched = await fetchNpy(api, traceId, verifiedHook, layer)
  const verified =
    tolerance === null
      ? verify(fetched, join(heldFolder(parts), `${requestId}.${verifiedHook}.${layer}.npy`), what)
      : await verifyWithTransformers(
          fetched,
          await fetchNpy(api, traceId, 'token_ids', -1),
          { python: python(), model: modelFolder(), folder: parts.folder, tolerance },
          what,
        )
  return { verified, losses: await readLosses(api, parts.segment) }
}
