/**
 * The span of the demo's own client, for engines that have no app around them: with it, the spans of the
 * engine and of ring2 lie in one tree. Sent as OTLP's JSON over HTTP, when the answer has come.
 */
import type { Answer, Ask } from './client.ts'
import { fetchChecked } from './http.ts'

const service = 'chat-client'

/** As `ask`, where the client's span is sent too when nobody else sends the root of the trace. */
export function withClientSpan(ask: Ask, otlpHttp: string): Ask {
  return async (question) => {
    const start = Date.now()
    const answer = await ask(question)
    const { client, services } = answer.ancestry
    if (client === null) return answer
    await sendSpan(otlpHttp, answer, client, { start, end: Date.now() })
    return { ...answer, ancestry: { client: null, services: services + 1 } }
  }
}

/** @throws Ring2Error when the Collector does not take it. */
async function sendSpan(
  otlpHttp: string,
  { traceId }: Answer,
  spanId: string,
  millis: { readonly start: number; readonly end: number },
): Promise<void> {
  const span = {
    traceId,
    spanId,
    name: 'chat',
    kind: 3, // CLIENT
    startTimeUnixNano: `${millis.start}000000`,
    endTimeUnixNano: `${millis.end}000000`,
  }
  const attributes = [{ key: 'service.name', value: { stringValue: service } }]
  const scopeSpans = [{ scope: { name: 'ring2-demo' }, spans: [span] }]
  const response = await fetchChecked(`${otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ resourceSpans: [{ resource: { attributes }, scopeSpans }] }),
  })
  await response.arrayBuffer()
}
