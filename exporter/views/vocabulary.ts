/** Texts of token ids, as a view asks for them. Where they come from: tensors/vocabularies.ts. */

export interface Vocabulary {
  /** Null for an id that the vocabulary does not have. */
  text(id: number): string | null
}
