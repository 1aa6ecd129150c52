/**
 * Payloads of stored rows: read from the store and checked. Nothing leaves this file whose checksum
 * does not fit.
 */

import { checksums } from '../../collector/index.ts'
import { REDACTED_ENCODING } from '../../collector/records.ts'
import { decodePayload } from '../codecs/codec.ts'
import { Ring2Error } from '../errors.ts'
import { answerLimits } from '../limits.ts'
import type { ParquetSource } from '../parquet/parquet-source.ts'
import { payloadFrom, type StitchRecord, type TensorRecord } from './records.ts'

interface RowPlace {
  readonly key: string
  readonly row: number
}

/** A stored row: what its payload is, and where. */
export type PayloadPlace = StitchRecord & RowPlace

/** The same with everything that is stored of it. */
export type TensorRowPlace = TensorRecord & RowPlace

export interface PayloadSource {
  /**
   * Payloads of neighbouring rows of one file, in their order.
   *
   * @throws Ring2Error RING2_E_CHECKSUM naming the row, RING2_E_STORE for a file that cannot be read.
   */
  read(places: readonly PayloadPlace[]): Promise<Uint8Array[]>
}

export function createPayloadSource(source: ParquetSource): PayloadSource {
  async function read(places: readonly PayloadPlace[]): Promise<Uint8Array[]> {
    const [first] = places
    if (first === undefined) return []
    refuseRedacted(places)
    const rows = await source.read(first.key, ['data'], first.row, first.row + places.length)
    const read = places.map((place, index) => decode(place, payloadFrom(rows[index] ?? {})))
    const sums = await checksums(read)
    for (const [index, place] of places.entries()) checkPayload(place, read[index], sums[index])
    return read
  }
  return { read }
}

/** The same payloads, until the signal says that nobody wants them any longer: then reads throw. */
export function untilAborted(payloads: PayloadSource, signal: AbortSignal | null): PayloadSource {
  if (signal === null) return payloads
  return {
    async read(places) {
      signal.throwIfAborted()
      return payloads.read(places)
    },
  }
}

/**
 * Splits rows, in the order given, into runs that one read gets: neighbours in one file, together at
 * most `answerLimits.sourceChunkBytes` unless one row alone is larger.
 *
 * @returns indexes into `places`; consecutive indexes of one row stay together.
 */
export function* payloadRuns(places: readonly PayloadPlace[]): Generator<readonly number[]> {
  let run: number[] = []
  let bytes = 0
  for (const [index, next] of places.entries()) {
    const last = places[run.at(-1) ?? -1]
    const same = last?.key === next.key && last.row === next.row
    const joins = same || (last?.key === next.key && last.row + 1 === next.row)
    const more = same ? 0 : next.data_bytes
    if (run.length > 0 && !(joins && bytes + more <= answerLimits.sourceChunkBytes)) {
      yield run
      run = []
      bytes = 0
    }
    run.push(index)
    bytes += run.length === 1 ? next.data_bytes : more
  }
  if (run.length > 0) yield run
}

/** Throws RING2_E_REDACTED when the payload of a row was left out when it was stored. */
export function refuseRedacted(places: readonly PayloadPlace[]): void {
  const place = places.find(({ encoding }) => encoding === REDACTED_ENCODING)
  if (place === undefined) return
  throw new Ring2Error('RING2_E_REDACTED', {
    expected: `stored elements of ${place.hook}`,
    actual: `the encoding ${REDACTED_ENCODING}, which has none`,
  })
}

function decode(place: PayloadPlace, stored: Uint8Array): Uint8Array {
  try {
    return decodePayload(place.encoding, stored, place)
  } catch (error) {
    if (!(error instanceof Ring2Error)) throw error
    const actual = `${error.actual} in row ${place.row} of ${place.key}`
    const { expected, action } = error
    throw new Ring2Error(error.code, { expected, actual, action, cause: error })
  }
}

function checkPayload(
  place: PayloadPlace,
  data: Uint8Array | undefined,
  sum: number | undefined,
): void {
  const bytes = data?.byteLength ?? 0
  if (bytes === place.data_bytes && sum === place.data_crc32c) return
  throw new Ring2Error('RING2_E_CHECKSUM', {
    expected: `${place.data_bytes} bytes with CRC-32C ${place.data_crc32c}`,
    actual:
      (bytes === place.data_bytes ? `CRC-32C ${sum}` : `${bytes} bytes`) +
      ` in row ${place.row} of ${place.key}`,
  })
}
