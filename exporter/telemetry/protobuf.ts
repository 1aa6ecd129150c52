/**
 * The wire form of Protocol Buffers: a writer that appends fields to one growing buffer, and a
 * reader that walks the fields of a message in place.
 *
 * It knows no message; field numbers are the caller's. Nothing is collected in parts: a nested
 * message is written where it lies, and its length is put before it when it is closed. A number that
 * a whole form does not hold (a fraction, NaN, one out of range) throws RangeError: nothing false is
 * ever written in its place. A double holds every number.
 *
 * Source: Protocol Buffers, "Encoding", https://protobuf.dev/programming-guides/encoding/
 */

/** Wire types. */
export const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

const TWO_32 = 2 ** 32
const CONTINUE = 0x80
/** Bytes of the longest varint. */
const VARINT_BYTES_MAX = 10
/** UTF-8 bytes of one UTF-16 unit, at most. */
const UTF8_BYTES_MAX = 3
/** Longest text that is written byte by byte. */
const ASCII_LENGTH_MAX = 40

export interface ProtobufWriter {
  /** Bytes written so far. */
  readonly length: number
  /** uint32, uint64, enum or bool: whole, from 0 to 2^53 − 1. */
  varint(field: number, value: number): void
  /** sint32. */
  sint32(field: number, value: number): void
  /** int64: whole, within ±(2^53 − 1). */
  int64(field: number, value: number): void
  /** fixed64 of `value` × `factor`, exact up to 2^64: both whole, factor below 2^20. */
  fixed64(field: number, value: number, factor?: number): void
  /** sfixed64: whole, within ±(2^53 − 1). */
  sfixed64(field: number, value: number): void
  /** From 0 to 2^32 − 1. */
  fixed32(field: number, value: number): void
  /** Infinities and NaN as IEEE 754 has them. */
  double(field: number, value: number): void
  /** UTF-8; half a surrogate pair becomes U+FFFD. */
  text(field: number, value: string): void
  /** Bytes given in hexadecimal digits, two for each. */
  hex(field: number, digits: string): void
  /** repeated uint64, packed. */
  packed(field: number, values: ArrayLike<number>): void
  /** Bytes as they are: whole fields, or the content of an opened one. */
  raw(bytes: Uint8Array): void
  /** Begins a nested message, and returns what `close` takes. */
  open(field: number): number
  close(start: number): void
  /** Takes back all that was written since `length` was this. */
  truncate(length: number): void
  /** A copy of what was written. */
  finish(): Buffer<ArrayBuffer>
}

/** @param initialBytes room at the start; it doubles when it is spent. */
export function createProtobufWriter(initialBytes = 4096): ProtobufWriter {
  let buffer = Buffer.allocUnsafe(Math.max(initialBytes, VARINT_BYTES_MAX))
  let at = 0

  const room = (bytes: number): void => {
    if (at + bytes <= buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, at + bytes))
    buffer.copy(larger, 0, 0, at)
    buffer = larger
  }
  /** Without a look at the room. */
  const put = (value: number): void => {
    let rest = value
    for (; rest >= TWO_32; rest = Math.floor(rest / CONTINUE)) {
      buffer[at++] = (rest % CONTINUE) | CONTINUE
    }
    for (; rest >= CONTINUE; rest >>>= 7) buffer[at++] = (rest & 0x7f) | CONTINUE
    buffer[at++] = rest
  }
  const tag = (field: number, wire: number, contentBytes: number): void => {
    room(VARINT_BYTES_MAX + contentBytes)
    put(field * 8 + wire)
  }
  const put64 = (low: number, high: number): void => {
    buffer.writeUInt32LE(low, at)
    buffer.writeUInt32LE(high, at + 4)
    at += 8
  }
  const open = (field: number): number => {
    tag(field, WIRE.bytes, 1)
    at += 1
    return at
  }
  const close = (start: number): void => {
    const length = at - start
    // One byte was left for the length; a longer one moves the content on.
    const more = varintBytes(length) - 1
    if (more > 0) {
      room(more)
      buffer.copyWithin(start + more, start, at)
    }
    at = start - 1
    put(length)
    at += length
  }

  return {
    get length() {
      return at
    },
    varint: (field, value) => {
      checkWhole(value, 0)
      tag(field, WIRE.varint, VARINT_BYTES_MAX)
      put(value)
    },
    sint32: (field, value) => {
      if ((value | 0) !== value) throw outOfRange('sint32', value)
      tag(field, WIRE.varint, VARINT_BYTES_MAX)
      put(((value << 1) ^ (value >> 31)) >>> 0)
    },
    int64: (field, value) => {
      checkWhole(value, -Number.MAX_SAFE_INTEGER)
      tag(field, WIRE.varint, VARINT_BYTES_MAX)
      if (value >= 0) put(value)
      else at = putNegative(buffer, at, value)
    },
    fixed64: (field, value, factor = 1) => {
      checkWhole(value, 0)
      const low = (value % TWO_32) * factor
      const high = Math.floor(value / TWO_32) * factor + Math.floor(low / TWO_32)
      if (high >= TWO_32) throw outOfRange('fixed64', value * factor)
      tag(field, WIRE.fixed64, 8)
      put64(low % TWO_32, high)
    },
    sfixed64: (field, value) => {
      checkWhole(value, -Number.MAX_SAFE_INTEGER)
      tag(field, WIRE.fixed64, 8)
      const high = Math.floor(value / TWO_32)
      put64(value - high * TWO_32, high >>> 0)
    },
    fixed32: (field, value) => {
      if (value >>> 0 !== value) throw outOfRange('fixed32', value)
      tag(field, WIRE.fixed32, 4)
      at = buffer.writeUInt32LE(value, at)
    },
    double: (field, value) => {
      tag(field, WIRE.fixed64, 8)
      at = buffer.writeDoubleLE(value, at)
    },
    text: (field, value) => {
      const start = open(field)
      room(value.length * UTF8_BYTES_MAX)
      at += putAscii(buffer, at, value) || buffer.write(value, at, 'utf8')
      close(start)
    },
    hex: (field, digits) => {
      tag(field, WIRE.bytes, VARINT_BYTES_MAX + digits.length / 2)
      put(digits.length / 2)
      at += buffer.write(digits, at, 'hex')
    },
    packed: (field, values) => {
      const start = open(field)
      room(values.length * VARINT_BYTES_MAX)
      for (let index = 0; index < values.length; index += 1) {
        const value = values[index] ?? 0
        checkWhole(value, 0)
        put(value)
      }
      close(start)
    },
    raw: (bytes) => {
      room(bytes.length)
      buffer.set(bytes, at)
      at += bytes.length
    },
    open,
    close,
    truncate: (length) => {
      at = length
    },
    finish: () => Buffer.from(buffer.subarray(0, at)),
  }
}

/** @throws RangeError unless the number is whole, at least `least`, and exact as a number. */
function checkWhole(value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) throw outOfRange('a whole number', value)
}

function outOfRange(form: string, value: number): RangeError {
  return new RangeError(`${value} cannot be written as ${form}`)
}

/**
 * Short texts of ASCII without the way into native code, which costs more than they do.
 *
 * @returns the bytes written; 0 when the text is none of these.
 */
function putAscii(buffer: Buffer, at: number, text: string): number {
  if (text.length > ASCII_LENGTH_MAX) return 0
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    if (code >= CONTINUE) return 0
    buffer[at + index] = code
  }
  return text.length
}

function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= CONTINUE; rest = Math.floor(rest / CONTINUE)) bytes += 1
  return bytes
}

/** Two's complement of 64 bits as ten bytes of seven bits; returns the place behind them. */
function putNegative(buffer: Buffer, start: number, value: number): number {
  let at = start
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest >= 0x80n; rest >>= 7n) buffer[at++] = Number(rest & 0x7fn) | CONTINUE
  buffer[at++] = Number(rest)
  return at
}

/** Walks the fields of one message; the properties tell of the field that `next` found. */
export interface ProtobufReader {
  /** Goes to the next field; false at the end. @throws RangeError when the bytes are no message. */
  next(): boolean
  readonly field: number
  readonly wire: number
  /** The content, without tag and length, borrowed from the message. */
  content(): Buffer
  /** The field as it stands, its tag included, borrowed from the message. */
  whole(): Buffer
  /** A varint as int64, rounded beyond 2^53. */
  int64(): number
  text(): string
}

export function createProtobufReader(message: Uint8Array): ProtobufReader {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
  let field = 0
  let wire = 0
  let from = 0
  let start = 0
  let end = 0

  const byteAt = (at: number): number => {
    const byte = bytes[at]
    if (byte === undefined) throw new RangeError(`a varint goes on at byte ${at} of ${at}`)
    return byte
  }
  const varintEnd = (at: number): number => {
    for (let last = at; last < at + VARINT_BYTES_MAX; last += 1) {
      if (byteAt(last) < CONTINUE) return last + 1
    }
    throw new RangeError(`a varint of more than ${VARINT_BYTES_MAX} bytes at ${at}`)
  }
  /** Exact up to 2^53; larger ones are rounded. */
  const unsignedAt = (at: number, behind: number): number => {
    let value = 0
    for (let last = behind - 1; last >= at; last -= 1)
      value = value * CONTINUE + (byteAt(last) & 0x7f)
    return value
  }

  return {
    next: () => {
      from = end
      if (from === bytes.length) return false
      const tagEnd = varintEnd(from)
      const tagValue = unsignedAt(from, tagEnd)
      wire = tagValue % 8
      field = Math.floor(tagValue / 8)
      start = tagEnd
      if (wire === WIRE.varint) end = varintEnd(start)
      else if (wire === WIRE.fixed64) end = start + 8
      else if (wire === WIRE.fixed32) end = start + 4
      else if (wire === WIRE.bytes) {
        start = varintEnd(tagEnd)
        end = start + unsignedAt(tagEnd, start)
      } else throw new RangeError(`wire type ${wire} at byte ${from}`)
      if (end > bytes.length) throw new RangeError(`a field ends at ${end} of ${bytes.length}`)
      return true
    },
    get field() {
      return field
    },
    get wire() {
      return wire
    },
    content: () => bytes.subarray(start, end),
    whole: () => bytes.subarray(from, end),
    int64: () => {
      if (end - start < VARINT_BYTES_MAX) return unsignedAt(start, end)
      // Ten bytes: negative, or at least 2^63.
      let value = 0n
      for (let last = end - 1; last >= start; last -= 1) {
        value = (value << 7n) | BigInt(byteAt(last) & 0x7f)
      }
      return Number(BigInt.asIntN(64, value))
    },
    text: () => bytes.toString('utf8', start, end),
  }
}
