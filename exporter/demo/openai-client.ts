/** Chats with a server that speaks OpenAI's API, with a trace context and a request id of our own. */
import { type Answer, newTrace } from './client.ts'
import { messagesOf } from './conversations.ts'
import { fetchChecked } from './http.ts'
import { demoLimits } from './limits.ts'

interface Completion {
  readonly id: string
  readonly choices: readonly { readonly message: { readonly content: string } }[]
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number }
}

/** @param services how many send spans of the request, the exporter among them. */
export async function askOpenAi(
  server: string,
  question: string,
  services: number,
): Promise<Answer> {
  const { traceId, spanId, traceparent } = newTrace()
  const began = performance.now()
  const response = await fetchChecked(`${server}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', traceparent },
    body: JSON.stringify({
      messages: messagesOf(question),
      max_tokens: demoLimits.tokensPerAnswer,
      temperature: 0,
    }),
  })
  const { id, choices, usage } = (await response.json()) as Completion
  return {
    question,
    text: choices[0]?.message.content ?? '',
    traceId,
    // A proxy that names requests says how; else the server's own id is the request's.
    requestId: response.headers.get('x-request-id') ?? id,
    promptTokens: usage.prompt_tokens,
    completionTokens: usage.completion_tokens,
    seconds: (performance.now() - began) / 1000,
    ancestry: { client: spanId, services },
  }
}
