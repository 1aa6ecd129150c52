/**
 * The elements of a stitched tensor as a stream of bytes, read from the store as they are taken.
 *
 * Tensors along the token axis are read run by run: memory is that of one run (some MiB, or one row)
 * whatever the tensor's size, rows outside the range asked for are not read, and whoever stops
 * taking stops the reads. Attention is laid out by heads and stored by steps, and shards are stored by
 * ranks, so each part needs every row: they are put together in memory, as large as the answer's
 * bound, and cut into parts.
 */

import { answerLimits } from '../limits.ts'
import { type PayloadPlace, type PayloadSource, payloadRuns } from './payloads.ts'
import { copySegment, isWhole, type StitchPlan, type StitchSegment } from './stitch.ts'

export interface StitchedRows {
  readonly plan: StitchPlan
  /** What the plan's segments point into. */
  readonly rows: readonly PayloadPlace[]
}

/** Whether a run of the answer needs rows from everywhere: heads, or shards, lie across the tokens. */
function isPutTogether(plan: StitchPlan): boolean {
  return plan.attention || plan.shards !== undefined
}

/** Bytes of memory that a stream of this tensor holds at most, but for what its taker keeps. */
export function streamMemoryBytes({ plan, rows }: StitchedRows): number {
  const places = placesOf(rows, plan.segments)
  const largest = places.reduce((most, place) => Math.max(most, place.data_bytes), 0)
  const run = Math.max(largest, Math.min(answerLimits.sourceChunkBytes, sum(places)))
  // A run as it was read, and as it is handed out; of attention the whole answer instead.
  return run + (isPutTogether(plan) ? plan.bytes : Math.min(run, plan.bytes))
}

/** Bytes [start, end) of the elements: row-major, little-endian. */
export async function* streamElements(
  payloads: PayloadSource,
  stitched: StitchedRows,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (start >= end) return
  if (isPutTogether(stitched.plan)) {
    const whole = await readWhole(payloads, stitched)
    for (let at = start; at < end; at += answerLimits.sourceChunkBytes) {
      yield whole.subarray(at, Math.min(end, at + answerLimits.sourceChunkBytes))
    }
    return
  }
  yield* streamTokens(payloads, stitched, start, end)
}

/** All elements at once. */
export async function readElements(
  payloads: PayloadSource,
  stitched: StitchedRows,
): Promise<Uint8Array> {
  if (isPutTogether(stitched.plan)) return readWhole(payloads, stitched)
  const out = new Uint8Array(stitched.plan.bytes)
  let at = 0
  for await (const part of streamElements(payloads, stitched, 0, out.byteLength)) {
    out.set(part, at)
    at += part.byteLength
  }
  return out
}

async function* streamTokens(
  payloads: PayloadSource,
  { plan, rows }: StitchedRows,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const entryBytes = plan.bytes / (plan.shape[0] ?? 1)
  const segments = cutSegments(
    plan.segments,
    Math.floor(start / entryBytes),
    Math.ceil(end / entryBytes),
  )
  const places = placesOf(rows, segments)
  for (const run of payloadRuns(places)) {
    const chosen = run.flatMap((index) => segments[index] ?? [])
    const base = chosen[0]?.out ?? 0
    const last = chosen.at(-1)
    const entries = (last === undefined ? base : last.out + last.count) - base
    const out = new Uint8Array(entries * entryBytes)
    const data = await readDistinct(
      payloads,
      run.flatMap((index) => places[index] ?? []),
    )
    for (const segment of chosen) {
      const row = rows[segment.row]
      const payload = row === undefined ? undefined : data.get(row)
      if (row === undefined || payload === undefined) continue
      copySegment(plan, { ...segment, out: segment.out - base }, row.shape, payload, out)
    }
    const first = base * entryBytes
    yield out.subarray(Math.max(0, start - first), Math.min(out.byteLength, end - first))
  }
}

/** Rows of the run by their place; a row that two segments need is read once. */
async function readDistinct(
  payloads: PayloadSource,
  run: readonly PayloadPlace[],
): Promise<Map<PayloadPlace, Uint8Array>> {
  const distinct = [...new Set(run)]
  const read = await payloads.read(distinct)
  return new Map(distinct.map((place, index) => [place, read[index] ?? new Uint8Array()]))
}

/** The parts of the segments at entries [start, end) of the answer. They are in its order. */
function cutSegments(
  segments: readonly StitchSegment[],
  start: number,
  end: number,
): StitchSegment[] {
  return segments.flatMap((segment) => {
    const first = Math.max(segment.out, start)
    const count = Math.min(segment.out + segment.count, end) - first
    if (count <= 0) return []
    return [{ ...segment, from: segment.from + first - segment.out, count, out: first }]
  })
}

async function readWhole(
  payloads: PayloadSource,
  { plan, rows }: StitchedRows,
): Promise<Uint8Array> {
  const [only] = plan.segments
  const row = only === undefined ? undefined : rows[only.row]
  if (only !== undefined && row !== undefined && isWhole(plan, only, row.shape)) {
    const [data] = await payloads.read([row])
    if (data !== undefined) return data
  }
  const out = new Uint8Array(plan.bytes)
  const segments = Map.groupBy(plan.segments, (segment) => rows[segment.row])
  const places = [...new Set(placesOf(rows, plan.segments))]
  places.sort((left, right) => compareText(left.key, right.key) || left.row - right.row)
  for (const run of payloadRuns(places)) {
    const chosen = run.flatMap((index) => places[index] ?? [])
    const data = await payloads.read(chosen)
    for (const [index, place] of chosen.entries()) {
      for (const segment of segments.get(place) ?? []) {
        copySegment(plan, segment, place.shape, data[index] ?? new Uint8Array(), out)
      }
    }
  }
  return out
}

/** The row of each segment. */
function placesOf(
  rows: readonly PayloadPlace[],
  segments: readonly StitchSegment[],
): PayloadPlace[] {
  return segments.flatMap((segment) => rows[segment.row] ?? [])
}

function sum(places: readonly PayloadPlace[]): number {
  return places.reduce((bytes, place) => bytes + place.data_bytes, 0)
}

function compareText(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}
