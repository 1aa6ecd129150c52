/**
 * The demo's healthy part, with or without servers to watch it: six requests, what the exporter stored of
 * them, and one stored tensor compared with what the model process itself held.
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

export type Requests = Pick<DemoDocument, 'requests' | 'verified' | 'losses'> & {
  readonly last: Answer
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

export async function healthyRequests(
  parts: Parts,
  addresses: Addresses,
  onProgress: (text: string) => void,
): Promise<Requests> {
  onProgress('sending six chat requests …')
  const { answers, requests } = await askAll(addresses, conversations, onProgress)
  const last = answers.at(-1)
  if (last === undefined) throw new Error('the demo sent no request')
  const layer = Math.floor((requests.at(-1)?.norms.length ?? 0) / 2)
  const verified = verify(
    await fetchNpy(addresses.api, last, verifiedHook, layer),
    join(heldFolder(parts), `${last.requestId}.${verifiedHook}.${layer}.npy`),
    verifiedHook,
    layer,
    last.requestId,
  )
  return { requests, verified, losses: await readLosses(addresses.api, parts.segment), last }
}
