/**
 * A Ring² producer for tests: writes any record into a segment of its own, through the library's
 * public C functions. Also reaches into the file itself, for what no honest producer writes.
 *
 * Tests may load the library themselves; sources go through collector/native.ts.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import koffi from 'koffi'
import { hooks } from '../../collector/hooks.gen.ts'
import { constants, control as controlLayout, dtypes } from '../../collector/layout.gen.ts'

const root = join(import.meta.dirname, '../..')
const libraryPath = process.env.RING2_LIBRARY || join(root, 'build/native/libring2.so')

koffi.struct('ring2_producer_options', {
  directory: 'const char *',
  name: 'const char *',
  payload_bytes: 'uint64_t',
  meta_slots: 'uint32_t',
  when_full: 'uint32_t',
  block_timeout_us: 'uint32_t',
})
koffi.struct('ring2_tensor', {
  hook: 'uint32_t',
  layer: 'int32_t',
  dtype: 'uint32_t',
  ndim: 'uint32_t',
  step: 'int64_t',
  dims: koffi.array('int64_t', 8),
  strides: koffi.array('int64_t', 8),
  tp_rank: 'uint16_t',
  pp_rank: 'uint16_t',
  dp_rank: 'uint16_t',
  ep_rank: 'uint16_t',
})
koffi.struct('ring2_claim', {
  payload: 'void *',
  payload_bytes: 'uint64_t',
  position: 'uint64_t',
})

type Handle = bigint
type Struct = Record<string, unknown>
type Native = Record<string, (...values: never[]) => unknown>

const library = koffi.load(libraryPath)
const bind = (declaration: string): unknown => library.func(declaration)
const native = {
  lastError: bind('const char *ring2_last_error()') as () => string,
  open: bind('int ring2_producer_open(ring2_producer_options *options, void *out)') as (
    options: Struct,
    out: BigUint64Array,
  ) => number,
  close: bind('int ring2_producer_close(void *producer)') as (producer: Handle) => number,
  heartbeat: bind('int ring2_producer_heartbeat(void *producer)') as (producer: Handle) => number,
  wants: bind('int ring2_wants(void *producer, uint32_t hook, int32_t layer)') as (
    producer: Handle,
    hook: number,
    layer: number,
  ) => number,
  takeControl: bind('int ring2_take_control(void *producer, void *out)') as (
    producer: Handle,
    out: Uint8Array,
  ) => number,
  wantsNothing: bind('int ring2_control_wants_nothing(void *control)') as (
    control: Uint8Array,
  ) => number,
  claim: bind(
    'int ring2_claim_tensor(void *producer, ring2_tensor *tensor, _Out_ ring2_claim *out)',
  ) as (producer: Handle, tensor: Struct, out: Struct) => number,
  commit: bind('int ring2_commit(void *producer, ring2_claim *claim)') as (
    producer: Handle,
    claim: Struct,
  ) => number,
  abort: bind('int ring2_abort(void *producer, ring2_claim *claim)') as (
    producer: Handle,
    claim: Struct,
  ) => number,
  writeTensor: bind(
    'int ring2_write_tensor(void *producer, ring2_tensor *tensor, const void *data)',
  ) as (producer: Handle, tensor: Struct, data: Uint8Array) => number,
  writeJson: bind(
    'int ring2_write_json(void *producer, uint32_t kind, const void *json, uint64_t bytes)',
  ) as (producer: Handle, kind: number, json: Uint8Array, bytes: number) => number,
  writeStep: bind('int ring2_write_step(void *producer, const void *header, const void *rows)') as (
    producer: Handle,
    header: Uint8Array,
    rows: Uint8Array,
  ) => number,
  countLoss: bind(
    'int ring2_count_loss(void *producer, uint32_t reason, uint64_t records, uint64_t bytes)',
  ) as (producer: Handle, reason: number, records: number, bytes: number) => number,
} satisfies Native

const hookIds = new Map(hooks.map((hook) => [hook.name, hook.id]))
const dtypeIds = new Map(Array.from(dtypes, ([id, name]) => [name, id]))

export interface ProducerOptions {
  readonly directory: string
  readonly name: string
  readonly payloadBytes?: number
  readonly metaSlots?: number
}

export interface StepRowFacts {
  readonly key: number | bigint
  readonly start: number
  readonly end: number
  readonly index?: number
  readonly rowOffset?: number
  readonly kvOffset?: number
  readonly phase?: 'prefill' | 'decode'
}

export interface StepFacts {
  readonly step: number
  readonly columns: number
  readonly rows: readonly StepRowFacts[]
  readonly packed?: boolean
  /** Of the control words it is captured by; left out, as a producer that knows none. */
  readonly sequence?: number
  readonly extra?: boolean
  readonly again?: boolean
}

export interface TensorFacts {
  readonly hook: string
  readonly layer?: number
  readonly step: number
  readonly dims: readonly number[]
  readonly dtype?: string
}

export interface Claim {
  readonly position: number
  /** The claimed bytes, in the ring itself. */
  readonly payload: Uint8Array
  commit(): void
  abort(): void
}

/** RING2_OK, or RING2_FULL: the record was refused and counted. */
export type Written = 'ok' | 'full'

export interface TestProducer {
  readonly path: string
  json(kind: number, body: unknown): Written
  bytes(kind: number, body: Uint8Array): Written
  model(facts?: Record<string, unknown>): Written
  request(facts: Record<string, unknown>): Written
  requestEnd(facts: Record<string, unknown>): Written
  step(facts: StepFacts): Written
  tensor(facts: TensorFacts, data: Uint8Array): Written
  claim(facts: TensorFacts): Claim
  countLoss(reason: number, records: number, bytes: number): void
  wants(hook: string, layer: number): boolean
  /** The control words as the producer takes them. */
  control(): { readonly sequence: number; wantsNothing(): boolean }
  heartbeat(): void
  close(): void
}

function written(returned: number, call: string): Written {
  if (returned < 0) throw new Error(`${call}: ${native.lastError()}`)
  return returned === constants.full ? 'full' : 'ok'
}

function tensorStruct(facts: TensorFacts): Struct {
  const { dims } = facts
  const strides = dims.map((_, axis) => dims.slice(axis + 1).reduce((a, b) => a * b, 1))
  const eight = (values: readonly number[]) => [...values, ...Array(8).fill(0)].slice(0, 8)
  return {
    hook: hookIds.get(facts.hook) ?? 31,
    layer: facts.layer ?? -1,
    dtype: dtypeIds.get(facts.dtype ?? 'float32'),
    ndim: dims.length,
    step: facts.step,
    dims: eight(dims),
    strides: eight(strides),
    tp_rank: 0,
    pp_rank: 0,
    dp_rank: 0,
    ep_rank: 0,
  }
}

/** A ring2_step_header and its ring2_step_rows. */
export function stepBody(facts: StepFacts): { header: Uint8Array; rows: Uint8Array } {
  const header = Buffer.alloc(32)
  header.writeBigInt64LE(BigInt(facts.step), 0)
  header.writeUInt32LE(facts.rows.length, 8)
  header.writeUInt32LE(facts.columns, 12)
  header.writeUInt8(facts.packed === true ? 1 : 0, 16)
  const extra = facts.extra === true ? constants.stepExtra : 0
  header.writeUInt8(extra | (facts.again === true ? constants.stepAgain : 0), 17)
  header.writeUInt32LE(facts.sequence ?? 0, 20)
  const rows = Buffer.alloc(32 * facts.rows.length)
  for (const [index, row] of facts.rows.entries()) {
    const base = index * 32
    rows.writeBigUInt64LE(BigInt(row.key), base)
    rows.writeInt32LE(row.start, base + 8)
    rows.writeInt32LE(row.end, base + 12)
    rows.writeInt32LE(row.index ?? index, base + 16)
    rows.writeInt32LE(row.rowOffset ?? 0, base + 20)
    rows.writeInt32LE(row.kvOffset ?? 0, base + 24)
    rows.writeUInt8(row.phase === 'decode' ? 1 : 0, base + 28)
  }
  return { header, rows }
}

export function openProducer(options: ProducerOptions): TestProducer {
  const out = new BigUint64Array(1)
  written(
    native.open(
      {
        directory: options.directory,
        name: options.name,
        payload_bytes: options.payloadBytes ?? 1 << 20,
        meta_slots: options.metaSlots ?? 0,
        when_full: 0,
        block_timeout_us: 0,
      },
      out,
    ),
    'open',
  )
  const handle = out[0] ?? 0n
  let closed = false
  const json = (kind: number, body: unknown) => bytes(kind, Buffer.from(JSON.stringify(body)))
  function bytes(kind: number, body: Uint8Array): Written {
    return written(native.writeJson(handle, kind, body, body.byteLength), 'write_json')
  }
  return {
    path: join(options.directory, `ring2.${options.name}`),
    json,
    bytes,
    model: (facts = {}) => json(constants.kindModel, { ...tinyModel, ...facts }),
    request: (facts) => json(constants.kindRequest, facts),
    requestEnd: (facts) => json(constants.kindRequestEnd, facts),
    step(facts) {
      const { header, rows } = stepBody(facts)
      return written(native.writeStep(handle, header, rows), 'write_step')
    },
    tensor: (facts, data) =>
      written(native.writeTensor(handle, tensorStruct(facts), data), 'write_tensor'),
    claim(facts) {
      const claim: Struct = {}
      if (written(native.claim(handle, tensorStruct(facts), claim), 'claim') === 'full') {
        throw new Error('the ring is full')
      }
      const length = Number(claim.payload_bytes)
      return {
        position: Number(claim.position),
        payload: new Uint8Array(koffi.view(claim.payload as never, length)),
        commit: () => void written(native.commit(handle, claim), 'commit'),
        abort: () => void written(native.abort(handle, claim), 'abort'),
      }
    },
    countLoss: (reason, records, lost) =>
      void written(native.countLoss(handle, reason, records, lost), 'count_loss'),
    wants: (hook, layer) => native.wants(handle, hookIds.get(hook) ?? 31, layer) === 1,
    control() {
      const words = new Uint8Array(controlLayout.bytes)
      written(native.takeControl(handle, words), 'take_control')
      const sequence = Buffer.from(words.buffer).readUInt32LE(controlLayout.sequence)
      return { sequence, wantsNothing: () => native.wantsNothing(words) === 1 }
    },
    heartbeat: () => void written(native.heartbeat(handle), 'heartbeat'),
    close() {
      // The handle is gone after the first time.
      if (!closed) written(native.close(handle), 'close')
      closed = true
    },
  }
}

/** What `model()` announces: two layers of four hidden values, two heads. */
export const tinyModel = {
  name: 'tiny',
  revision: 'r1',
  engine: 'test',
  dtype: 'float32',
  layers: 2,
  heads: 2,
  kv_heads: 1,
  hidden: 4,
  vocabulary: 8,
  hooks: { resid_pre: [0, 1] },
}

/** Little-endian float32 bytes. */
export function float32(values: readonly number[]): Uint8Array {
  return new Uint8Array(new Float32Array(values).buffer)
}

/** Overwrites bytes of a segment's file: header words, descriptors, payload. */
export function poke(path: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.byteLength, offset)
  closeSync(file)
}

export function peek(path: string, offset: number, length: number): Buffer {
  const file = openSync(path, 'r')
  const bytes = Buffer.alloc(length)
  readSync(file, bytes, 0, length, offset)
  closeSync(file)
  return bytes
}

/** Offset of a descriptor in the file. */
export function descriptorOffset(path: string, position: number): number {
  const header = peek(path, 0, 64)
  const slots = header.readUInt32LE(24)
  return Number(header.readBigUInt64LE(16)) + (position % slots) * header.readUInt32LE(28)
}

export function word64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
