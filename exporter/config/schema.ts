/**
 * The configuration's one schema: keys, types, defaults, ranges and help.
 *
 * It yields the TypeScript type, the published JSON Schema (config.schema.json), docs/config.md and
 * the environment variables. Sections are one level deep, and a key is `section.name`. It reads
 * nothing.
 */

import { type Static, type TSchema, Type } from 'typebox'
import { hooks } from '../../collector/hooks.gen.ts'
import { constants } from '../../collector/layout.gen.ts'
import { type StatisticGroup, statisticGroups } from '../../collector/statistic-groups.ts'
import { type VerdictRule, verdictRules } from '../../collector/verdict-rules.ts'
import { codecNames } from '../codecs/plan.ts'
import { configLimits } from './limits.ts'

const { secondsMax, portMax, bytesMax, countMax, textCharactersMax, listEntriesMax } = configLimits
const MIB = 1024 * 1024

function text(description: string, options: Record<string, unknown> = {}) {
  return Type.String({ description, minLength: 1, maxLength: textCharactersMax, ...options })
}

function count(description: string, initial: number, minimum: number, maximum: number) {
  return Type.Integer({ description, default: initial, minimum, maximum })
}

function seconds(description: string, initial: number, minimum: number) {
  return Type.Number({ description, default: initial, minimum, maximum: secondsMax })
}

function choice<const T extends string>(description: string, initial: T, values: readonly T[]) {
  return Type.Unsafe<T>({ type: 'string', enum: values, description, default: initial })
}

function hookList(description: string, initial: readonly string[] = ['all']) {
  return Type.Array(
    Type.Unsafe<string>({ type: 'string', enum: ['all', ...hooks.map((hook) => hook.name)] }),
    {
      description,
      default: initial,
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  )
}

function section<T extends Record<string, TSchema>>(title: string, description: string, keys: T) {
  return Type.Object(keys, { title, description, additionalProperties: false })
}

const store = section('Tensor store', 'Where full tensors are kept.', {
  url: text(
    'Directory, `file://` URL, or bucket (`s3://bucket/prefix`) that holds the Parquet files.',
    {
      default: '~/.cache/ring2/store',
    },
  ),
  spool: text(
    'Local directory for files that are not yet uploaded. Used with a bucket only; ' +
      'a directory store keeps its state in `{store}/.ring2`.',
    {
      default: '~/.cache/ring2/spool',
    },
  ),
  flush_seconds: seconds('A row waits at most this long before it is written.', 2, 0.05),
  flush_bytes: count(
    'Payload bytes that wait before they are written at once.',
    64 * MIB,
    4096,
    bytesMax,
  ),
  codecs: Type.Array(
    Type.Unsafe<string>({
      type: 'string',
      title:
        `HOOK=CODEC, where HOOK is one of all, ${hooks.map(({ name }) => name).join(', ')} ` +
        `and CODEC one of ${codecNames.join(', ')}`,
      enum: ['all', ...hooks.map((hook) => hook.name)].flatMap((hook) =>
        codecNames.map((codec) => `${hook}=${codec}`),
      ),
    }),
    {
      description:
        'Codecs of stored tensors, each `HOOK=CODEC` with `lossless`, `absmax` (each element ' +
        'within 1e-3 of the largest magnitude of its block of 64) or `raw`. A hook of its own wins ' +
        'over `all`. An empty list: all are stored as they are (docs/codecs.md).',
      default: [],
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  ),
  spool_bytes_max: count(
    'Bytes of files that may wait for their upload into a bucket. Beyond it nothing is taken from ' +
      'the rings until the bucket takes files again; then the policy of each ring decides.',
    4096 * MIB,
    4096,
    bytesMax,
  ),
  fsync: Type.Boolean({
    description: 'Whether each file is forced to disk, so that it outlives a crash of the machine.',
    default: false,
  }),
})

const segments = section('Segments', 'Which shared-memory segments are drained.', {
  directory: text('Directory that holds the segments.', { default: '/dev/shm' }),
  names: Type.Array(text('Segment name, or a pattern with `*` and `?`.'), {
    description:
      'Segments to drain, by name or pattern; the `ring2.` of the file name is left out.',
    default: ['*'],
    minItems: 1,
    maxItems: listEntriesMax,
  }),
})

const capture = section('Capture', 'What is done with the tensors of each hook.', {
  stats: hookList('Hooks that are measured (metrics and spans). An empty list: none.'),
  tensors: hookList('Hooks whose full tensors are stored, and measured too. An empty list: none.'),
  layers: Type.Array(
    text('`HOOK[LAYERS]`, such as `resid_pre[::4]`.', {
      title: 'HOOK[LAYERS] such as resid_pre[::4], q[0,5,11] or all[0:8]',
      pattern: '^[a-z_0-9]+\\[[0-9:, ]+\\]$',
    }),
    {
      description:
        'The only layers that are wanted of a hook, or with `all` of every hook without an entry of ' +
        'its own; layers count from 0. An empty list: all layers.',
      default: [],
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  ),
  request_share: Type.Number({
    description: 'Share of the requests that are wanted, chosen by a hash of the request id.',
    default: 1,
    minimum: 0,
    maximum: 1,
  }),
  sampled_only: Type.Boolean({
    description: 'Whether only requests are wanted that come with a sampled trace context.',
    default: false,
  }),
  prefill: Type.Boolean({
    description: 'Whether tokens of the prompt are wanted.',
    default: true,
  }),
  decode_every: count(
    'Generated tokens are wanted at positions that this number divides; 0: none of them.',
    1,
    0,
    configLimits.decodeEveryMax,
  ),
  keep_policy: Type.Boolean({
    description:
      'Whether a policy that was set while the exporter ran outlives it: it is kept beside the ' +
      'state of the store, and wins over the keys above (docs/policy.md).',
    default: false,
  }),
  redact_hooks: hookList(
    'Hooks whose payloads are never stored: of their tensors only shape and statistics are kept.',
    [],
  ),
  redact_attributes: Type.Array(
    text('Key of a request attribute, or a pattern with `*` and `?`.'),
    {
      description:
        'Request attributes whose values become `redacted` everywhere: in spans, in the store, in the API.',
      default: [],
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  ),
  statistics: Type.Array(
    Type.Unsafe<StatisticGroup | 'all'>({
      type: 'string',
      enum: ['all', ...Object.keys(statisticGroups)],
    }),
    {
      description:
        'Groups of statistics computed beyond norms, moments, entropies and sink mass; ' +
        'each costs time of the drain worker. An empty list: none.',
      default: ['all'],
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  ),
})

const AGE = '[1-9][0-9]{0,5}[hdw]'
const SIZE = '[1-9][0-9]{0,14}([KMGT]iB)?'

const retention = section(
  'Retention',
  'What is removed from the store when it is old or too much (docs/storage.md). Off by default.',
  {
    max_age: Type.Optional(
      text('Files whose rows are all older are removed: hours, days or weeks, such as `30d`.', {
        title: 'an age such as 12h, 30d or 8w',
        pattern: `^${AGE}$`,
      }),
    ),
    max_bytes: Type.Optional(
      text('Beyond these bytes of files the oldest tensors are removed: such as `500GiB`.', {
        title: 'a size such as 500GiB',
        pattern: `^${SIZE}$`,
      }),
    ),
    models: Type.Array(
      text('`MODEL=AGE`, `MODEL=SIZE`, `MODEL=AGE SIZE` or `MODEL=keep`.', {
        title: 'MODEL=AGE, MODEL=SIZE, MODEL=AGE SIZE or MODEL=keep, such as org/*=7d 50GiB',
        pattern: `^[^=].*=(keep|${AGE}|${SIZE}|${AGE} ${SIZE})$`,
      }),
      {
        description:
          'Rules by model, such as `org/*=7d 50GiB`; `*` and `?` stand for other characters. The ' +
          'first that fits replaces `retention.max_age`, and bounds the bytes of each such model. ' +
          '`keep` removes nothing.',
        default: [],
        maxItems: listEntriesMax,
        uniqueItems: true,
      },
    ),
  },
)

const verdict = section('Verdict', 'How requests are judged (docs/verdicts.md).', {
  rules: Type.Array(
    Type.Unsafe<VerdictRule | 'all'>({ type: 'string', enum: ['all', ...verdictRules] }),
    {
      description:
        'Rules that requests are judged by. A rule that is off finds nothing and needs no evidence. ' +
        'An empty list: every verdict is `unknown`.',
      default: ['all'],
      maxItems: listEntriesMax,
      uniqueItems: true,
    },
  ),
  baselines: text(
    'File of what `ring2-exporter calibrate` has learnt. It is read again when it changes. ' +
      'Default: `baselines.json` beside the configuration file; without such a file, the one given here.',
    { default: '~/.config/ring2/baselines.json' },
  ),
})

const api = section('API', 'The HTTP API and the /metrics page.', {
  host: text('Address to listen on. Any but a loopback address needs `api.token`.', {
    default: '127.0.0.1',
  }),
  port: count('TCP port; 0 chooses a free one.', 9464, 0, portMax),
  token: Type.Optional(
    text('Bearer token that requests must carry. Unset: no token is asked for.', {
      writeOnly: true,
    }),
  ),
  public_url: Type.Optional(
    text('Base URL under which others reach the API; links on spans begin with it.', {
      pattern: '^https?://',
    }),
  ),
})

const telemetry = section('Telemetry', 'Spans and metrics sent by OTLP over gRPC.', {
  otlp: choice(
    'Whether OTLP is sent. `auto`: when an endpoint is set, here or by OTEL_EXPORTER_OTLP_….',
    'auto',
    ['auto', 'on', 'off'],
  ),
  endpoint: Type.Optional(
    text('URL of the Collector. Wins over OTEL_EXPORTER_OTLP_ENDPOINT.', { pattern: '^https?://' }),
  ),
  metrics_interval_seconds: seconds(
    'Time between two metric exports. OTEL_METRIC_EXPORT_INTERVAL, when set, wins over it.',
    15,
    0.1,
  ),
  tap: Type.Boolean({
    description:
      'Whether the API takes spans of other processes, as OTLP/HTTP at `/otlp/v1/traces`, ' +
      'to find the trace context of requests that came without one.',
    default: false,
  }),
  tap_wait_seconds: seconds(
    'With `telemetry.tap`: how long the spans of an ended request wait for a trace context.',
    10,
    0.1,
  ),
})

const drain = section('Drain', 'How the rings are emptied.', {
  interval_ms: Type.Number({
    description: 'Pause after a turn that found nothing, in milliseconds.',
    default: 2,
    minimum: 0,
    maximum: 1000,
  }),
  batch_records: count(
    'Slices taken in one turn.',
    4096,
    constants.stepRowsMax,
    configLimits.batchRecordsMax,
  ),
  batch_bytes: count('Payload bytes taken in one turn.', 64 * MIB, 4096, bytesMax),
})

const limits = section('Limits', 'Bounds on memory.', {
  requests_max: count(
    'Requests in the registry at once; the oldest are given up.',
    10_000,
    1,
    countMax,
  ),
  request_idle_seconds: seconds('A request without any record for so long is given up.', 600, 1),
  spans_max: count(
    'Spans that wait for the Collector; beyond it the oldest are lost.',
    100_000,
    1,
    countMax,
  ),
  span_bytes_max: count('Bytes, estimated, of spans that wait.', 64 * MIB, 65_536, bytesMax),
  metric_bytes_max: count(
    'Bytes of metric exports that wait for the Collector; beyond it the oldest are lost.',
    16 * MIB,
    65_536,
    bytesMax,
  ),
})

const log = section('Log', 'Lines on standard error.', {
  level: choice('Least severe level that is written.', 'info', ['debug', 'info', 'warn', 'error']),
  format: choice('`auto`: text on a terminal, else JSON.', 'auto', ['auto', 'text', 'json']),
})

/** Title and help of the whole, for the published schema. */
export const configTitle = 'ring2-exporter configuration'
export const configDescription = 'Every key may be left out.'

export const configSchema = Type.Object(
  { store, segments, capture, retention, verdict, api, telemetry, drain, limits, log },
  { additionalProperties: false },
)

/** A complete configuration: every key has a value, but for those that may be unset. */
export type Config = Static<typeof configSchema>
