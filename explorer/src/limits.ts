/** Every bound of the explorer: what it asks for at once, keeps and draws, each with its reason. */

export const limits = {
  /** Tokens of one page of text; the server gives no more at once. */
  tokensPerPage: 4096,
  /** Alternatives shown of one token. */
  alternatives: 10,
  /** Cells of one tile along the tokens. */
  tileCells: 256,
  /** Cells across a view before the next coarser level is asked for: some two pixels each. */
  viewCells: 512,
  /** Tiles and windows kept of one view, the least recently used leave first. */
  answersKept: 48,
  /** Cells along each axis of an attention view. */
  patternCells: 256,
  /** Cells along each axis of a head's small picture. */
  headCells: 32,
  /** Small pictures of heads. */
  headsMax: 64,
  /** Columns and rows of a table that stands for a picture; a coarser level fills it. */
  tableCells: 32,
  /** The fewest tokens that fill a view. */
  viewTokensMin: 8,
  /** Traces of one page of results. */
  tracesPerPage: 25,
  /** Names of models offered while one is typed. */
  modelNames: 200,
  /** Pause before the server is asked for what the reader points at. */
  settleMillis: 120,
  /** Browsers refuse more than some 200 changes of the address in 30 s. */
  addressMillis: 250,
  /** Characters of an error's answer that are read. */
  problemCharacters: 10_000,
} as const
