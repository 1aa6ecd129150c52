/** What the demo's client asks, and how the model is broken meanwhile. */
/** Noise in one layer's weights, in standard deviations of each weight. */
export interface Fault {
  readonly layer: number
  readonly noise: number
  readonly seed: number
}

/** Long enough for the statistics that need 65 tokens of prompt. */
const system =
  'You are a careful assistant. Answer in one short sentence, in plain words, and never invent facts. ' +
  'If a question cannot be answered for certain, say so and name what would be needed to answer it. ' +
  'Use words that everybody knows.'

/** Groups are sent one after the other, a group's requests at once. */
export const conversations: readonly (readonly string[])[] = [
  ['What is the capital of France?'],
  ['Why is the sky blue?', 'Name three primary colours.'],
  ['What is 17 plus 25?', 'Write a haiku about the sea.', 'Who wrote the play Hamlet?'],
]

/** Asked again while the model is broken. */
export const brokenConversations: readonly (readonly string[])[] = [
  ['Why is the sky blue?', 'Name three primary colours.', 'Who wrote the play Hamlet?'],
]

/**
 * A layer in the middle. With a quarter of the noise SmolLM2 still answers in sentences; with this much
 * the norm of what leaves that layer, and enters the next, grows manyfold; healthy layers stay below twofold.
 */
export const demoFault: Fault = { layer: 15, noise: 2, seed: 0 }

export function messagesOf(question: string): { role: string; content: string }[] {
  return [
    { role: 'system', content: system },
    { role: 'user', content: question },
  ]
}
