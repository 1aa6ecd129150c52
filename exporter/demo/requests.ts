/**
 * The demo's requests, with or without servers to watch them: what the exporter stored of them, and one
 * stored tensor compared with what the model process itself held.
 */
import { join } from 'node:path'
import { type Answer, chat, fetchNpy, readLosses, waitForRequest } from './client.ts'
import { conversations } from './conversations.ts'
import { type DemoDocument, type DemoRequest, describeRequest } from './document.ts'
import { heldFolder, type Parts } from './parts.ts'
import { verify } from './verify.ts'

export interface Addresses {
  readonly service: string
  readonly api: string
}

const verifiedHook = 'resid_pre'

/** Asks, and waits until the exporter has stored everything. */
export async function askAll(
  addresses: Addresses,
  groups: readonly (readonly string[])[],
  onProgress: (text: string) => void,
): Promise<{ answers: Answer[]; requests: DemoRequest[] }> {
  const answers = await chat(addresses.service, groups, (answer) =>
    onProgress(`  ${answer.question}\n    ${answer.text.trim().replaceAll('\n', ' / ')}`),
  )
  const requests = []
  for (const answer of answers) {
    requests.push(describeRequest(answer, await waitForRequest(addresses.api, answer)))
  }
  return { answers, requests }
}

/** Six requests to the healthy model. */
export async function healthyRequests(
  addresses: Addresses,
  onProgress: (text: string) => void,
): Promise<{ requests: DemoRequest[]; last: Answer }> {
  onProgress('sending six chat requests …')
  const { answers, requests } = await askAll(addresses, conversations, onProgress)
  const last = answers.at(-1)
  if (last === undefined) throw new Error('the demo sent no request')
  return { requests, last }
}

/** Compares one tensor of a request, from the middle of the model, and reads what was lost so far. */
export async function checkStored(
  parts: Parts,
  { api }: Addresses,
  { traceId, requestId }: Answer,
  layers: number,
): Promise<Pick<DemoDocument, 'verified' | 'losses'>> {
  const layer = Math.floor(layers / 2)
  const verified = verify(
    await fetchNpy(api, traceId, verifiedHook, layer),
    join(heldFolder(parts), `${requestId}.${verifiedHook}.${layer}.npy`),
    { hook: verifiedHook, layer, trace_id: traceId, request_id: requestId },
  )
  return { verified, losses: await readLosses(api, parts.segment) }
}
