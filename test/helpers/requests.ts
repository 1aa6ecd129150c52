/** Requests that a test producer writes, with values that tell where they belong. */
import { float32, type TestProducer } from './producer.ts'

/** Values that tell where they belong: request, layer, step and place. */
export function stepValues(key: number, layer: number, step: number, tokens: number): number[] {
  return Array.from(
    { length: tokens * 4 },
    (_, index) => key * 1000 + layer * 100 + step * 10 + index,
  )
}

/** One request on its own: a prefill of `prompt` tokens, then one token per step. */
export function writeRequest(
  producer: TestProducer,
  key: number,
  prompt: number,
  steps: number,
): void {
  beginRequest(producer, key)
  for (let step = 0; step < steps; step++) writeStep(producer, key, step, prompt)
  endRequest(producer, key, prompt, steps)
}

export function beginRequest(producer: TestProducer, key: number): void {
  producer.request({ key, request_id: `request-${key}` })
}

export function endRequest(
  producer: TestProducer,
  key: number,
  prompt: number,
  steps: number,
): void {
  producer.requestEnd({
    key,
    steps,
    tokens: prompt + steps - 1,
    prompt_tokens: prompt,
    outcome: 'ok',
  })
}

/** Step `step` of request `key` with a tensor of both layers; its number is unique per request. */
export function writeStep(producer: TestProducer, key: number, step: number, prompt: number): void {
  const tokens = step === 0 ? prompt : 1
  const start = step === 0 ? 0 : prompt + step - 1
  const number = key * 1000 + step
  producer.step({
    step: number,
    columns: tokens,
    rows: [{ key, start, end: start + tokens, phase: step === 0 ? 'prefill' : 'decode' }],
  })
  for (const layer of [0, 1]) {
    producer.tensor(
      { hook: 'resid_pre', layer, step: number, dims: [1, tokens, 4] },
      float32(stepValues(key, layer, step, tokens)),
    )
  }
}
