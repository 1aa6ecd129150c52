/** The demo's client: chats over HTTP with a trace of its own, and reads the exporter's API. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ring2Error } from '../errors.ts'
import { type Fault, messagesOf } from './conversations.ts'
import { fetchChecked } from './http.ts'
import { demoLimits } from './limits.ts'
import type { Ancestry } from './trace-tree.ts'

export interface Answer {
  readonly question: string
  readonly text: string
  readonly traceId: string
  readonly requestId: string
  readonly promptTokens: number
  readonly completionTokens: number
  readonly seconds: number
  /** Where its spans hang. */
  readonly ancestry: Ancestry
}

/** What the API says of one request; only what the demo shows. */
export interface StoredRequest {
  readonly request_id: string
  readonly tokens: number
  readonly prompt_tokens: number
  readonly verdict: string
  readonly completeness: string
  readonly tensors_stored: number
  readonly bytes_stored: number
  readonly details: {
    readonly statistics: {
      readonly layers: Readonly<Record<string, readonly (number | null)[]>>
      readonly globals: Readonly<Record<string, number>>
    }
  } | null
}

/** A trace of the client's own, whose root is sent to nobody. */
export function newTrace(): Readonly<Record<'traceId' | 'spanId' | 'traceparent', string>> {
  const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')]
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-01` }
}

/** One request to the chat service. */
export async function askChatService(service: string, question: string): Promise<Answer> {
  const began = performance.now()
  const response = await fetchChecked(`${service}/chat`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', traceparent: newTrace().traceparent },
    body: JSON.stringify({
      messages: messagesOf(question),
      max_tokens: demoLimits.tokensPerAnswer,
    }),
  })
  const body = (await response.json()) as {
    text: string
    request_id: string
    trace_id: string
    prompt_tokens: number
    completion_tokens: number
  }
  return {
    question,
    text: body.text,
    traceId: body.trace_id,
    requestId: body.request_id,
    promptTokens: body.prompt_tokens,
    completionTokens: body.completion_tokens,
    seconds: (performance.now() - began) / 1000,
    // The service's own span is the root of what is sent.
    ancestry: { client: null, services: 2 },
  }
}

export type Ask = (question: string) => Promise<Answer>

/** Groups are sent one after the other, a group's questions at once. */
export async function chat(
  ask: Ask,
  groups: readonly (readonly string[])[],
  onAnswer: (answer: Answer) => void,
): Promise<Answer[]> {
  const answers: Answer[] = []
  for (const group of groups) {
    const together = await Promise.all(
      group.map(async (question) => {
        const answer = await ask(question)
        onAnswer(answer)
        return answer
      }),
    )
    answers.push(...together)
  }
  return answers
}

/** Breaks the model of a chat service that was started to be broken. */
export async function injectFault(service: string, fault: Fault): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  const body = JSON.stringify(fault)
  await (await fetchChecked(`${service}/faults`, { method: 'POST', headers, body })).arrayBuffer()
}

/** Restores the weights; nothing when they are healthy. */
export async function removeFault(service: string): Promise<void> {
  await (await fetchChecked(`${service}/faults`, { method: 'DELETE' })).arrayBuffer()
}

/** Waits until the exporter has the whole of a request. */
export async function waitForRequest(api: string, answer: Answer): Promise<StoredRequest> {
  const until = performance.now() + demoLimits.storedMillis
  let last = 'nothing'
  while (performance.now() < until) {
    const response = await fetch(`${api}/v1/traces/${answer.traceId}`)
    if (response.ok) {
      const { requests } = (await response.json()) as { requests: StoredRequest[] }
      const found = requests.find((request) => request.request_id === answer.requestId)
      if (found?.details != null) return found
      last = JSON.stringify(found ?? requests.map((request) => request.request_id))
    } else last = `status ${response.status}`
    await sleep(demoLimits.pollMillis)
  }
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `request ${answer.requestId} in the store within ${demoLimits.storedMillis / 1000} s`,
    actual: last,
  })
}

export interface Loss {
  readonly reason: string
  readonly records: number
  readonly bytes: number
}

export async function readLosses(api: string, segment: string): Promise<Loss[]> {
  const response = await fetchChecked(`${api}/v1/rings`)
  const { segments } = (await response.json()) as {
    segments: { segment: string; losses: Loss[] }[]
  }
  return segments.find((one) => one.segment === segment)?.losses ?? []
}

export async function fetchNpy(
  api: string,
  traceId: string,
  hook: string,
  layer: number,
): Promise<Uint8Array> {
  const path = `/v1/traces/${traceId}/tensors/${hook}/${layer}?format=npy&require=complete`
  return new Uint8Array(await (await fetchChecked(`${api}${path}`)).arrayBuffer())
}
