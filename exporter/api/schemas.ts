/**
 * Shapes of requests and answers, as JSON Schema: they check query parameters and make
 * /openapi.json. Values are checked further where they are parsed (tensors/selection.ts).
 */

import { type TSchema, Type } from 'typebox'
import { verdicts } from '../../collector/records.ts'
import { httpLimits } from '../limits.ts'
import { tensorFormats } from '../tensors/formats.ts'
import { problemSchema } from './problem.ts'

const maxLength = httpLimits.parameterCharactersMax

function parameter(description: string) {
  return Type.Optional(Type.String({ description, maxLength }))
}

function nullable<T extends TSchema>(schema: T) {
  return Type.Union([schema, Type.Null()])
}

const strict = { additionalProperties: false }
const time = Type.String({ description: 'UTC, ISO 8601 with microseconds' })
const tokenRange = Type.Array(Type.Integer(), {
  description: 'half open: [first, last + 1]',
  minItems: 2,
  maxItems: 2,
})

export const traceParameters = Type.Object({
  trace_id: Type.String({ description: '32 lower-case hexadecimal digits', maxLength }),
})

export const tensorParameters = Type.Object({
  trace_id: Type.String({ description: '32 lower-case hexadecimal digits', maxLength }),
  hook: Type.String({ description: 'hook name, e.g. resid_pre', maxLength }),
  layer: Type.String({ description: 'layer number; "global" for hooks without layers', maxLength }),
})

export const listQuerySchema = Type.Object(
  {
    since: parameter('1h, 30m, 7d, or a time in ISO 8601'),
    model: parameter('model name, exactly'),
    verdict: Type.Optional(Type.Union(verdicts.map((verdict) => Type.Literal(verdict)))),
    q: parameter('beginning of the trace id, or any part of the request id, literally'),
    limit: parameter('requests per page, 1 to 500; 50 when left out'),
    cursor: parameter('next_cursor of the page before'),
  },
  strict,
)

export const tensorListQuerySchema = Type.Object(
  {
    hook: parameter('only this hook'),
    layer: parameter('only this layer; "global" for hooks without layers'),
    request_id: parameter('only this request'),
    producer: parameter('only rows of this producer'),
  },
  strict,
)

export const tensorQuerySchema = Type.Object(
  {
    request_id: parameter('needed when several requests of the trace have this tensor'),
    producer: parameter('needed when several producers have this tensor of one request'),
    tokens: parameter('a:b, half open logical positions; either end may be left out'),
    heads: parameter('0,3,5:8 for tensors with heads'),
    rank: parameter('tensor-parallel rank, or tp:0,pp:1'),
    format: Type.Optional(
      Type.Union(
        tensorFormats.map((format) => Type.Literal(format)),
        { default: 'npy' },
      ),
    ),
    require: Type.Optional(
      Type.Literal('complete', { description: 'answer 409 unless every token is there' }),
    ),
  },
  strict,
)

const requestFields = {
  trace_id: Type.String(),
  caller_trace_id: nullable(
    Type.String({
      description: 'the trace it belongs to, when that was known after it was stored',
    }),
  ),
  request_id: Type.String(),
  span_id: nullable(Type.String()),
  model: Type.String(),
  model_revision: Type.String(),
  engine: Type.String(),
  producer: Type.String(),
  host: Type.String(),
  started_at: time,
  ended_at: nullable(time),
  tokens: nullable(Type.Integer()),
  prompt_tokens: nullable(Type.Integer()),
  steps: nullable(Type.Integer()),
  verdict: Type.String({ description: verdicts.join(', ') }),
  completeness: Type.String({
    description: 'of the capture, when the request ended: complete, sampled, incomplete or unknown',
  }),
  tensors_stored: Type.Integer(),
  bytes_stored: Type.Integer({ description: 'of the decoded elements' }),
}

export const traceListSchema = Type.Object(
  {
    traces: Type.Array(Type.Object(requestFields, strict), {
      description: 'one entry per request and producer, newest first',
    }),
    next_cursor: nullable(Type.String()),
  },
  strict,
)

const ranks = {
  tp_rank: Type.Integer(),
  pp_rank: Type.Integer(),
  dp_rank: Type.Integer(),
  ep_rank: Type.Integer(),
}

const heldTensor = Type.Object(
  {
    hook: Type.String(),
    layer: Type.Integer({ description: '-1 for hooks without layers' }),
    ...ranks,
    dtype: Type.String(),
    token_start: Type.Integer(),
    token_end: Type.Integer(),
    rows: Type.Integer(),
    bytes: Type.Integer(),
  },
  strict,
)

const phase = Type.Object(
  {
    phase: Type.String(),
    started_at: time,
    ended_at: time,
    tokens: tokenRange,
    steps: Type.Integer(),
  },
  strict,
)

const finding = Type.Object(
  {
    verdict: Type.String(),
    statistic: Type.String({ description: 'hook.statistic' }),
    value: Type.Number(),
    bound: Type.Number({ description: 'the bound that the value passed' }),
    direction: Type.String({ description: 'above or below' }),
    layer: nullable(Type.Integer({ description: 'null when the statistic is not of one layer' })),
    phase: nullable(
      Type.String({ description: 'prefill or decode; null when it is of the whole request' }),
    ),
  },
  strict,
)

const parallel = Type.Object(
  {
    world: Type.Object(
      { tp: Type.Integer(), pp: Type.Integer(), dp: Type.Integer(), ep: Type.Integer() },
      strict,
    ),
    ranks: Type.Array(
      Type.Object(
        {
          producer: Type.String(),
          host: Type.String(),
          ...ranks,
          steps: Type.Integer(),
          completeness: Type.String(),
        },
        strict,
      ),
      { description: 'the processes that came, by stage and shard' },
    ),
  },
  { ...strict, description: 'null when one process ran the model' },
)

const details = Type.Object(
  {
    parent_span_id: nullable(Type.String()),
    attributes: Type.Record(Type.String(), Type.Unknown()),
    phases: Type.Array(phase),
    completeness: Type.Object(
      {
        state: Type.String(),
        expected: Type.Integer(),
        seen: Type.Integer(),
        reasons: Type.Array(Type.String()),
        kept: Type.Optional(
          Type.Array(Type.Array(Type.Integer()), {
            description: 'when sampled: the token ranges that were captured, half open',
          }),
        ),
      },
      strict,
    ),
    findings: Type.Array(finding, { description: 'rules that the request broke, worst first' }),
    missing_evidence: Type.Array(Type.String(), {
      description: 'in words, what was missing to call it ok',
    }),
    baseline: Type.String({ description: 'calibrated or default: the bounds it was judged by' }),
    tensors_stored: Type.Integer({
      description: 'when the request ended; fewer are there now where retention removed some',
    }),
    nonfinite: Type.Object(
      { nan: Type.Integer(), pos_inf: Type.Integer(), neg_inf: Type.Integer() },
      strict,
    ),
    statistics: Type.Object(
      {
        layers: Type.Record(Type.String(), Type.Array(nullable(Type.Number()))),
        globals: Type.Record(Type.String(), Type.Number()),
      },
      strict,
    ),
    parallel: nullable(parallel),
  },
  strict,
)

export const traceSchema = Type.Object(
  {
    trace_id: Type.String(),
    requests: Type.Array(
      Type.Object(
        {
          ...requestFields,
          details: Type.Union([details, Type.Null()], {
            description: 'null until the request has ended',
          }),
          tensors: Type.Array(heldTensor),
        },
        strict,
      ),
    ),
  },
  strict,
)

export const tensorListSchema = Type.Object(
  {
    trace_id: Type.String(),
    tensors: Type.Array(
      Type.Object(
        {
          request_id: Type.String(),
          producer: Type.String({ description: 'steps are counted by each producer for itself' }),
          hook: Type.String(),
          layer: Type.Integer(),
          step: Type.Integer(),
          phase: Type.String(),
          tokens: tokenRange,
          kv_offset: Type.Integer(),
          ...ranks,
          captured_at: time,
          dtype: Type.String(),
          shape: Type.Array(Type.Integer()),
          encoding: Type.String(),
          data_bytes: Type.Integer(),
          data_crc32c: Type.Integer(),
          statistics: Type.Record(Type.String(), nullable(Type.Number())),
          nonfinite: Type.Integer(),
          file: Type.String({ description: 'key in the store' }),
          row: Type.Integer(),
        },
        strict,
      ),
    ),
  },
  strict,
)

export const problemContent = { 'application/problem+json': { schema: problemSchema } }

/** The answers of a data route: its own, and the problems that any of them may give instead. */
export function answers(own: object): Record<string, unknown> {
  return { 200: own, ...problemResponses }
}

const problemResponses = {
  400: { description: 'A parameter is not valid.', content: problemContent },
  401: { description: 'The bearer token is missing or wrong.', content: problemContent },
  404: { description: 'There is no such trace or tensor.', content: problemContent },
  409: { description: 'Part of the tensor is missing.', content: problemContent },
  413: { description: 'The answer would be too large.', content: problemContent },
  500: { description: 'Stored bytes are damaged, or a defect.', content: problemContent },
  503: {
    description: 'The store cannot be read, or too much is being sent.',
    content: problemContent,
  },
}
