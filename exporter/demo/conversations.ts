/** What the demo's client asks: groups are sent one after the other, a group's requests at once. */
const system =
  'You are a careful assistant. Answer in one short sentence, in plain words, and never invent facts. ' +
  'If a question cannot be answered for certain, say so and name what would be needed to answer it.'

export const conversations: readonly (readonly string[])[] = [
  ['What is the capital of France?'],
  ['Why is the sky blue?', 'Name three primary colours.'],
  ['What is 17 plus 25?', 'Write a haiku about the sea.', 'Who wrote the play Hamlet?'],
]

export function messagesOf(question: string): { role: string; content: string }[] {
  return [
    { role: 'system', content: system },
    { role: 'user', content: question },
  ]
}
