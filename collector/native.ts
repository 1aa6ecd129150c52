/**
 * The only file that loads the native library: declares its C ABI, turns return codes into errors,
 * and maps a segment's payload once. Nothing above it sees a pointer.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import koffi from 'koffi'
import { nativeError, Ring2Error } from './errors.ts'
import { control } from './layout.gen.ts'

/** An address in this process; only this module makes and uses them. */
type Pointer = bigint & { readonly brand: 'pointer' }

interface Functions {
  lastError(): string
  version(): string
  isa(): string
  crc32c(data: Uint8Array, bytes: number, seed: number): number
  peek(path: string, info: Uint8Array): number
  open(path: string, out: BigUint64Array): number
  close(consumer: Pointer, remove: number): number
  info(consumer: Pointer, info: Uint8Array): number
  payload(consumer: Pointer): unknown
  seek(consumer: Pointer, position: number): number
  addStep(consumer: Pointer, body: Uint8Array, bytes: number): number
  control(consumer: Pointer, out: Uint8Array): number
  setControl(consumer: Pointer, control: Uint8Array, sequence: Uint32Array): number
  wantsRequest(control: Uint8Array, id: Uint8Array, bytes: number, sampled: number): number
  drain(
    consumer: Pointer,
    slices: Uint8Array,
    maxSlices: number,
    maxBytes: number,
    result: Uint8Array,
  ): number
  release(consumer: Pointer, position: number): number
  gather(consumer: Pointer, slice: Uint8Array, out: Uint8Array): number
  measure(
    consumer: Pointer,
    fold: Pointer,
    track: Pointer,
    slices: Uint8Array,
    count: number,
  ): number
  trackCreate(out: BigUint64Array): number
  trackDestroy(track: Pointer): number
  trackEnd(track: Pointer, requestKey: number): number
  foldCreate(out: BigUint64Array): number
  foldDestroy(fold: Pointer): number
  foldRead(fold: Pointer, points: Uint8Array | null, max: number): number
  foldCounts(fold: Pointer, counts: Uint8Array | null, max: number): number
  foldRecord(
    fold: Pointer,
    signal: number,
    hook: number,
    layer: number,
    phase: number,
    values: Float64Array,
    count: number,
    key: number,
    realtimeNs: number | bigint,
  ): number
}

const libraryName = 'libring2.so'

/** RING2_LIBRARY, or where the build puts it, or where a package carries it. */
function libraryPath(): string {
  const named = process.env.RING2_LIBRARY
  const root = join(import.meta.dirname, '..')
  const candidates =
    named === undefined || named === ''
      ? [join(root, 'build', 'native', libraryName), join(root, 'native', 'lib', libraryName)]
      : [named]
  const found = candidates.find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new Ring2Error('RING2_E_NATIVE_LIBRARY', {
    expected: `the library at ${candidates.join(' or ')}`,
    actual: 'no such file',
  })
}

let library: ReturnType<typeof koffi.load> | null = null

/** The library, loaded once in a thread. */
function openLibrary(): ReturnType<typeof koffi.load> {
  if (library !== null) return library
  const path = libraryPath()
  try {
    library = koffi.load(path)
    return library
  } catch (cause) {
    throw new Ring2Error('RING2_E_NATIVE_LIBRARY', {
      expected: `${path} to load`,
      actual: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

function load(): Functions {
  const opened = openLibrary()
  const bind = (declaration: string) => opened.func(declaration) as never
  return {
    lastError: bind('const char *ring2_last_error()'),
    version: bind('const char *ring2_version()'),
    isa: bind('const char *ring2_isa()'),
    crc32c: bind('uint32_t ring2_crc32c(const void *data, uint64_t bytes, uint32_t seed)'),
    peek: bind('int ring2_segment_peek(const char *path, void *info)'),
    open: bind('int ring2_consumer_open(const char *path, void *out)'),
    close: bind('int ring2_consumer_close(void *consumer, int remove)'),
    info: bind('int ring2_consumer_info(void *consumer, void *info)'),
    payload: bind('void *ring2_consumer_payload(void *consumer)'),
    seek: bind('int ring2_consumer_seek(void *consumer, uint64_t position)'),
    addStep: bind('int ring2_consumer_add_step(void *consumer, const void *body, uint64_t bytes)'),
    control: bind('int ring2_consumer_control(void *consumer, void *out)'),
    setControl: bind(
      'int ring2_consumer_set_control(void *consumer, void *control, void *sequence)',
    ),
    wantsRequest: bind(
      'int ring2_control_wants_request(void *control, void *id, uint64_t bytes, int sampled)',
    ),
    drain: bind(
      'int ring2_drain(void *consumer, void *slices, uint64_t max_slices, uint64_t max_bytes, void *result)',
    ),
    release: bind('int ring2_release(void *consumer, uint64_t position)'),
    gather: bind('int ring2_gather(void *consumer, const void *slice, void *out)'),
    measure: bind(
      'int ring2_measure(void *consumer, void *fold, void *track, void *slices, uint64_t count)',
    ),
    trackCreate: bind('int ring2_track_create(void *out)'),
    trackDestroy: bind('int ring2_track_destroy(void *track)'),
    trackEnd: bind('int ring2_track_end(void *track, uint64_t request_key)'),
    foldCreate: bind('int ring2_fold_create(void *out)'),
    foldDestroy: bind('int ring2_fold_destroy(void *fold)'),
    foldRead: bind('int ring2_fold_read(void *fold, void *points, uint32_t max)'),
    foldCounts: bind('int ring2_fold_counts(void *fold, void *counts, uint32_t max)'),
    foldRecord: bind(
      'int ring2_fold_record(void *fold, uint32_t signal, uint32_t hook, int32_t layer, ' +
        'uint32_t phase, const double *values, uint64_t count, uint64_t key, uint64_t realtime_ns)',
    ),
  }
}

let loaded: Functions | null = null

function functions(): Functions {
  loaded ??= load()
  return loaded
}

/** Throws for a negative return value; gives the others back. */
function check(returned: number, call: string): number {
  if (returned >= 0) return returned
  throw nativeError(returned, call, functions().lastError())
}

type NativeArgument = number | bigint | ArrayBufferView | null

/**
 * A function of the library without state, called on a thread of its own so that the event loop goes
 * on; the memory it is given must not change meanwhile. Rejects for a negative return value.
 */
export function nativeTask(
  declaration: string,
): (...values: readonly NativeArgument[]) => Promise<number> {
  const native = openLibrary().func(declaration)
  const name = /ring2_\w+/.exec(declaration)?.[0] ?? declaration
  return (...values) =>
    new Promise((resolve, reject) => {
      native.async(...values, (failed: Error | null, returned: number) => {
        if (failed !== null) reject(failed)
        // The text of the error stays with the other thread.
        else if (returned < 0) reject(nativeError(returned, name, 'arguments that do not fit'))
        else resolve(returned)
      })
    })
}

/**
 * A function of the library without state, called at once on this thread. Throws for a negative
 * return value.
 */
export function nativeCall(declaration: string): (...values: readonly NativeArgument[]) => number {
  const native = openLibrary().func(declaration)
  const name = /ring2_\w+/.exec(declaration)?.[0] ?? declaration
  return (...values) => check(native(...values), name)
}

export interface NativeFacts {
  readonly version: string
  /** `avx512`, `avx2` or `portable`. */
  readonly isa: string
}

export function nativeFacts(): NativeFacts {
  return { version: functions().version(), isa: functions().isa() }
}

/** CRC-32C (Castagnoli, RFC 3720) of the bytes. */
export function crc32c(data: Uint8Array): number {
  return functions().crc32c(data, data.byteLength, 0)
}

/** Reads a segment's counters into `info` (ring2_segment_info) without taking the segment. */
export function peekSegment(path: string, info: Uint8Array): void {
  check(functions().peek(path, info), `peek ${path}`)
}

/** A fold: histograms and counters of one model. Use from one thread only. */
export interface NativeFold {
  readonly pointer: Pointer
  /** Number of series; up to `max` are written to `points` (ring2_point). */
  read(points: Uint8Array | null, max: number): number
  counts(counts: Uint8Array | null, max: number): number
  /** Folds samples that were not measured from a tensor. */
  record(series: FoldSeries, values: Float64Array, requestKey: number, atMicros: number): void
  destroy(): void
}

/** Ids of native/include/ring2.h; layer −1 for global hooks. */
export interface FoldSeries {
  readonly signal: number
  readonly hook: number
  readonly layer: number
  readonly phase: number
}

export function createFold(): NativeFold {
  const native = functions()
  const out = new BigUint64Array(1)
  check(native.foldCreate(out), 'fold_create')
  const pointer = out[0] as Pointer
  return {
    pointer,
    read: (points, max) => check(native.foldRead(pointer, points, max), 'fold_read'),
    counts: (counts, max) => check(native.foldCounts(pointer, counts, max), 'fold_counts'),
    record({ signal, hook, layer, phase }, values, requestKey, atMicros) {
      const nanos = BigInt(Math.round(atMicros)) * 1000n
      check(
        native.foldRecord(
          pointer,
          signal,
          hook,
          layer,
          phase,
          values,
          values.length,
          requestKey,
          nanos,
        ),
        'fold_record',
      )
    },
    destroy: () => void check(native.foldDestroy(pointer), 'fold_destroy'),
  }
}

/** What statistics over several tensors of a request remember. Use from one thread only. */
export interface NativeTrack {
  readonly pointer: Pointer
  /** Forgets a request that has ended. */
  end(requestKey: number): void
  destroy(): void
}

export function createTrack(): NativeTrack {
  const native = functions()
  const out = new BigUint64Array(1)
  check(native.trackCreate(out), 'track_create')
  const pointer = out[0] as Pointer
  return {
    pointer,
    end: (requestKey) => void check(native.trackEnd(pointer, requestKey), 'track_end'),
    destroy: () => void check(native.trackDestroy(pointer), 'track_destroy'),
  }
}

/** A segment held by this process. Positions are meta positions; all calls are synchronous. */
export interface NativeConsumer {
  /** The payload ring itself, not a copy. It must not be read after `close`. */
  readonly payload: Uint8Array
  info(info: Uint8Array): void
  seek(position: number): void
  addStep(body: Uint8Array): void
  /** ring2_control as it stands in the segment. */
  control(): Uint8Array
  /** Writes it if it differs; returns the sequence it stands under. */
  setControl(control: Uint8Array): number
  drain(slices: Uint8Array, maxSlices: number, maxBytes: number, result: Uint8Array): void
  release(position: number): void
  gather(slice: Uint8Array, out: Uint8Array): void
  measure(fold: NativeFold, track: NativeTrack, slices: Uint8Array, count: number): void
  close(remove: boolean): void
}

/** Takes a segment; RING2_E_BUSY when another exporter has it. */
export function openConsumer(path: string, payloadBytes: number): NativeConsumer {
  const native = functions()
  const out = new BigUint64Array(1)
  check(native.open(path, out), `open ${path}`)
  const pointer = out[0] as Pointer
  // One view for the life of the mapping: making one costs a garbage collection.
  const payload = new Uint8Array(koffi.view(native.payload(pointer) as never, payloadBytes))
  return {
    payload,
    info: (info) => void check(native.info(pointer, info), 'info'),
    seek: (position) => void check(native.seek(pointer, position), 'seek'),
    addStep: (body) => void check(native.addStep(pointer, body, body.byteLength), 'add_step'),
    control() {
      const words = new Uint8Array(control.bytes)
      check(native.control(pointer, words), 'control')
      return words
    },
    setControl(words) {
      const sequence = new Uint32Array(1)
      check(native.setControl(pointer, words, sequence), 'set_control')
      return sequence[0] as number
    },
    drain: (slices, maxSlices, maxBytes, result) =>
      void check(native.drain(pointer, slices, maxSlices, maxBytes, result), 'drain'),
    release: (position) => void check(native.release(pointer, position), 'release'),
    gather: (slice, target) => void check(native.gather(pointer, slice, target), 'gather'),
    measure: (fold, track, slices, count) =>
      void check(native.measure(pointer, fold.pointer, track.pointer, slices, count), 'measure'),
    close: (remove) => void check(native.close(pointer, remove ? 1 : 0), 'close'),
  }
}

/** Whether a ring2_control chooses a request; every producer decides alike. */
export function wantsRequest(words: Uint8Array, requestId: string, sampled: boolean): boolean {
  const id = new TextEncoder().encode(requestId)
  return functions().wantsRequest(words, id, id.byteLength, sampled ? 1 : 0) === 1
}
