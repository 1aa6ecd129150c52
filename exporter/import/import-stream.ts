/**
 * Imports one STRAP-LLM `.stream` capture into the store: a survey, then the rows in flushes of the
 * configured size, then the summary. Importing the same file again changes nothing.
 *
 * What a crash leaves is finished by the next import: ids of rows and names of files come from the
 * capture alone. Not here: the command (cli/import.ts), uploads.
 */

import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync } from 'node:fs'
import type { Outcome } from '../../collector/records.ts'
import { openCatalogOf } from '../catalog/catalog.ts'
import type { Config } from '../config.ts'
import { Ring2Error } from '../errors.ts'
import { dtypeOf } from '../tensors/dtypes.ts'
import { storeLocation } from '../tensors/open.ts'
import { type ClosableTensorSink, createTensorSink } from '../tensors/tensor-sink.ts'
import { readStream, unreadable } from './stream-file.ts'
import { type StreamCodec, unpack } from './stream-payload.ts'
import { type Capture, createCapture } from './stream-rows.ts'
import { type StreamSurvey, surveyStream, valuesOf } from './stream-survey.ts'
import { readTokenFile } from './token-file.ts'

export interface ImportOptions {
  readonly file: string
  readonly model: string
  readonly traceId: string | null
  readonly tokens: string | null
  readonly dtype: string
  /** Null: by the first packet's mark. */
  readonly codec: StreamCodec | null
}

export interface ImportReport {
  readonly trace_id: string
  readonly request_id: string
  /** That it is stored under. */
  readonly model: string
  readonly codec: StreamCodec
  readonly packets: number
  /** Payload bytes as they were before the capture compressed them. */
  readonly bytes: number
  readonly tokens: number
  /** Of the tokens file; none are stored of a capture that the store had. */
  readonly token_ids: number
  readonly torn_bytes: number
  readonly padding_bytes: number
  readonly damaged_packets: number
  /** True when the store had this capture: nothing was written. */
  readonly already_imported: boolean
  readonly modules: readonly {
    readonly module: string
    readonly hook: string
    readonly packets: number
    readonly width: number
    readonly entries: number
  }[]
}

/**
 * @throws Ring2Error RING2_E_IMPORT for a file that cannot be read, has no whole packet, or one over
 *   the bound; RING2_E_STORE when the store refuses.
 */
export function importStream(config: Config, options: ImportOptions): ImportReport {
  const tokens = options.tokens === null ? null : readTokenFile(options.tokens)
  const elementBytes = dtypeOf(options.dtype).bytes
  const fd = open(options.file)
  try {
    const { codec, dtype, model, traceId } = options
    const survey = surveyStream(fd, { codec, dtype, elementBytes })
    if (survey.modules.size === 0) throw nothingIn(options.file, survey)
    const startedAtMicros = Math.floor(fstatSync(fd).mtimeMs) * 1000
    const { redact_hooks: redactHooks, redact_attributes: redactAttributes } = config.capture
    const facts = { survey, model, traceId, dtype, tokens, startedAtMicros }
    const capture = createCapture({ ...facts, redactHooks, redactAttributes })
    const known = storedModel(config, capture)
    if (known === null) store(config, fd, survey, capture)
    return reportOf(survey, capture, known)
  } finally {
    closeSync(fd)
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (error) {
    throw unreadable('the capture', path, error)
  }
}

/** The model that the store has this capture under; null when it is not there. */
function storedModel(config: Config, { request }: Capture): string | null {
  const catalog = openCatalogOf(storeLocation(config))
  try {
    // A request without a summary is what an import left that did not come to its end.
    const stored = catalog
      .requests(request.traceId)
      .find((one) => one.request_id === request.requestId && one.summary !== null)
    return stored?.model ?? null
  } finally {
    catalog.close()
  }
}

function store(config: Config, fd: number, survey: StreamSurvey, capture: Capture): void {
  const sink = createTensorSink({
    location: storeLocation(config),
    fsync: config.store.fsync,
    codecs: config.store.codecs,
    nextUlid: ulidsOf(capture),
  })
  try {
    // What an import that was killed has left half written.
    valueIn(sink.discardExcept(capture.producer, []))
    readStream(fd, ({ name, data }) => {
      const module = survey.modules.get(name)
      if (module === undefined) return
      const content = unpack(survey.codec, data)
      const whole = valuesOf(content, survey.elementBytes) === null ? null : content
      const row = capture.row(module, whole)
      if (row !== null) sink.append(row)
      if (sink.pending().bytes >= config.store.flush_bytes) flush(sink, capture)
    })
    const tokenRow = capture.tokenRow()
    if (tokenRow !== null) sink.append(tokenRow)
    sink.finish(capture.summary)
    flush(sink, capture)
  } finally {
    sink.close()
  }
}

function flush(sink: ClosableTensorSink, capture: Capture): void {
  valueIn(sink.publish(valueIn(sink.prepare(capture.producer))))
}

function valueIn<T>(outcome: Outcome<T>): T {
  if (outcome.status === 'success') return outcome.value
  throw outcome.error
}

const CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const ULID_CHARACTERS = 26

/** ULIDs by form: the same capture gives its files the same names each time. */
function ulidsOf(capture: Capture): () => string {
  let count = 0
  return () => {
    count += 1
    const { traceId, requestId } = capture.request
    const bytes = createHash('sha256').update(`${traceId} ${requestId} ${count}`).digest()
    const text = [...bytes.subarray(0, ULID_CHARACTERS)]
      .map((byte) => CROCKFORD[byte & 31])
      .join('')
    // 128 bits in 26 characters of 5: the first is at most 7.
    return `0${text.slice(1)}`
  }
}

function reportOf(survey: StreamSurvey, capture: Capture, known: string | null): ImportReport {
  const { request, summary } = capture
  return {
    trace_id: request.traceId,
    request_id: request.requestId,
    model: known ?? summary.model.name,
    codec: survey.codec,
    packets: survey.packets,
    bytes: summary.bytesStored,
    tokens: summary.tokens,
    token_ids: known === null ? capture.tokenIds : 0,
    torn_bytes: survey.end.tornBytes,
    padding_bytes: survey.end.paddingBytes,
    damaged_packets: survey.damagedPackets,
    already_imported: known !== null,
    modules: [...survey.modules.values()].map(({ module, hook, packets, width, values }) => ({
      module,
      hook,
      packets,
      width,
      entries: values / width,
    })),
  }
}

function nothingIn(file: string, { end, packets }: StreamSurvey): Ring2Error {
  return new Ring2Error('RING2_E_IMPORT', {
    expected: `at least one whole packet in ${file}`,
    actual: `${packets === 1 ? '1 packet' : `${packets} packets`}, none readable, in ${end.bytes} bytes`,
  })
}
