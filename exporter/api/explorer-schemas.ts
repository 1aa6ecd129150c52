/** Shapes of the questions and answers of the explorer's routes, as JSON Schema. */

import { Type } from 'typebox'
import { httpLimits, viewLimits } from '../limits.ts'

const maxLength = httpLimits.parameterCharactersMax
const strict = { additionalProperties: false }

function parameter(description: string) {
  return Type.Optional(Type.String({ description, maxLength }))
}

const number = (description?: string) =>
  Type.Union([Type.Number(), Type.Null()], description === undefined ? {} : { description })
const integer = (description?: string) =>
  Type.Union([Type.Integer(), Type.Null()], description === undefined ? {} : { description })
const text = (description?: string) =>
  Type.Union([Type.String(), Type.Null()], description === undefined ? {} : { description })
const numbers = (description: string) => Type.Array(number(), { description })
const range = (description: string) =>
  Type.Array(Type.Integer(), { description: `${description}, half open`, minItems: 2, maxItems: 2 })

const scope = {
  request_id: parameter('needed when the trace has several requests'),
  producer: parameter('needed when several producers have the request'),
}

export const tokensQuerySchema = Type.Object(
  {
    ...scope,
    start: parameter('first position; 0 when left out'),
    limit: parameter(
      `tokens at once, 1 to ${viewLimits.tokensMax}; ${viewLimits.tokensDefault} when left out`,
    ),
  },
  strict,
)

export const alternativesQuerySchema = Type.Object(
  {
    ...scope,
    k: parameter(
      `how many, 1 to ${viewLimits.alternativesMax}; ${viewLimits.alternativesDefault} when left out`,
    ),
  },
  strict,
)

export const normsQuerySchema = Type.Object(
  {
    ...scope,
    hook: parameter('hook with a row of numbers for each token; resid_pre when left out'),
    tokens: parameter('a:b, half open logical positions; either end may be left out'),
    columns: parameter(
      `cells of a row at most, 1 to ${viewLimits.columnsMax}; ${viewLimits.columnsDefault} when left out`,
    ),
  },
  strict,
)

export const patternQuerySchema = Type.Object(
  {
    ...scope,
    head: parameter('head number, or mean (when left out) for the mean over heads'),
    queries: parameter('a:b, half open positions of queries'),
    keys: parameter('a:b, half open positions of keys'),
    size: parameter(
      `rows and columns at most, 1 to ${viewLimits.tileMax}; ${viewLimits.tileDefault} when left out`,
    ),
  },
  strict,
)

const traceId = Type.String({ description: '32 lower-case hexadecimal digits', maxLength })

export const tokenParameters = Type.Object({
  trace_id: traceId,
  position: Type.String({ description: 'position of the token', maxLength }),
})

export const patternParameters = Type.Object({
  trace_id: traceId,
  layer: Type.String({ description: 'layer number', maxLength }),
})

const answered = {
  trace_id: Type.String(),
  request_id: Type.String(),
  producer: Type.String(),
}

const token = Type.Object(
  {
    position: Type.Integer(),
    id: integer(),
    text: text('what the tokenizer decodes the id to, alone'),
    phase: Type.String({ description: 'prefill or decode' }),
    entropy: number('nats, of the distribution that the token was drawn from'),
    surprisal: number('-ln of the probability of this token'),
    confidence: number('probability of the most probable token'),
    margin: number('largest logit less the second largest'),
    has_alternatives: Type.Boolean(),
  },
  strict,
)

export const tokensSchema = Type.Object(
  {
    ...answered,
    model: Type.String(),
    prompt_tokens: integer('null until the request has ended'),
    total: Type.Integer(),
    start: Type.Integer(),
    vocabulary: Type.String({ description: 'known or unknown' }),
    missing: Type.Array(Type.String(), { description: 'in words, what is not there and why' }),
    tokens: Type.Array(token),
  },
  strict,
)

export const alternativesSchema = Type.Object(
  {
    ...answered,
    position: Type.Integer(),
    id: integer(),
    text: text(),
    entropy: number('nats'),
    alternatives: Type.Array(
      Type.Object(
        { id: Type.Integer(), text: text(), probability: number(), logit: number() },
        strict,
      ),
      { description: 'most probable first' },
    ),
    chosen_rank: integer('place of the token among all, from 0; null where its id is not known'),
  },
  strict,
)

export const normsSchema = Type.Object(
  {
    ...answered,
    hook: Type.String(),
    layers: Type.Array(Type.Integer()),
    tokens: range('positions shown'),
    tokens_per_cell: Type.Integer({ description: 'a power of two' }),
    rows: Type.Array(
      Type.Object(
        {
          layer: Type.Integer(),
          mean: numbers('mean L2 norm of the tokens of each cell; null where nothing is stored'),
          max: numbers('largest L2 norm of the tokens of each cell'),
        },
        strict,
      ),
    ),
  },
  strict,
)

export const patternSchema = Type.Object(
  {
    ...answered,
    layer: Type.Integer(),
    head: Type.Union([Type.Integer(), Type.Literal('mean')]),
    heads: Type.Integer(),
    queries: range('positions of queries shown'),
    keys: range('positions of keys shown'),
    tokens_per_cell: Type.Integer({ description: 'a power of two' }),
    rows: Type.Integer(),
    columns: Type.Integer(),
    cells: numbers(
      'row-major, the largest probability that a cell covers; null where nothing is stored or the ' +
        'keys come after the query',
    ),
    sink: Type.Object(
      {
        key_mass: numbers('mean mass on the keys of each column, over the queries shown'),
        first_key: number('mean mass on the first key'),
      },
      strict,
    ),
    lookback: numbers(
      'for each row the share of mass on keys of the prompt; null for queries of the prompt itself',
    ),
  },
  strict,
)
