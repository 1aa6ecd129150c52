import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { decodePayload } from '../../../exporter/codecs/codec.ts'
import { createRowEncoder } from '../../../exporter/codecs/encode.ts'
import { planCodecs } from '../../../exporter/codecs/plan.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { dtypeOf } from '../../../exporter/tensors/dtypes.ts'
import { crc32c } from '../tensors/crc32c.ts'
import { runPython } from '../tensors/python.ts'
import { row } from '../tensors/rows.ts'

const folder = mkdtempSync(join(tmpdir(), 'ring2-codec-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Numbers in [0, 1) that are the same in every run. */
function randoms(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

function normal(next: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
}

/** float32 to the bits of a narrower type, by cutting: any bits will do as input. */
const narrow: Record<string, (value: number) => number> = {
  bfloat16: (value) => (new Uint32Array(new Float32Array([value]).buffer)[0] ?? 0) >>> 16,
  float16: (value) => new Uint16Array(new Float16Array([value]).buffer)[0] ?? 0,
}

function rowOf(dtype: string, values: readonly number[], width: number): TensorRow {
  const elements =
    dtype === 'float32'
      ? new Float32Array(values)
      : Uint16Array.from(values, (value) => narrow[dtype]?.(value) ?? 0)
  const data = new Uint8Array(elements.buffer)
  return row({ dtype, data, shape: [values.length / width, width] })
}

function activations(count: number, seed = 1): number[] {
  const next = randoms(seed)
  return Array.from({ length: count }, (_, index) => normal(next) * (index % 97 === 0 ? 60 : 1))
}

function encode(codec: string, given: TensorRow): TensorRow {
  return createRowEncoder(planCodecs([`resid_pre=${codec}`]))(given)
}

function factsOf(one: TensorRow) {
  return { dtype: one.dtype, data_bytes: one.decodedBytes ?? one.data.byteLength }
}

function decode(one: TensorRow): Uint8Array {
  return decodePayload(one.encoding ?? 'raw', one.data, factsOf(one))
}

function numbers(dtype: string, bytes: Uint8Array): number[] {
  const { read, bytes: size } = dtypeOf(dtype)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: bytes.byteLength / size }, (_, index) =>
    Number(read(view, index * size)),
  )
}

describe('the lossless codec', () => {
  it('gives every byte back, for every type of element', () => {
    for (const dtype of ['float32', 'float16', 'bfloat16']) {
      const given = rowOf(dtype, activations(4096), 64)
      const encoded = encode('lossless', given)
      expect(encoded.encoding).toBe('bytes-zstd-1')
      expect(encoded.data.byteLength).toBeLessThan(given.data.byteLength)
      expect(encoded.crc32c).toBe(given.crc32c)
      expect(decode(encoded)).toEqual(given.data)
    }
    for (const dtype of ['int8', 'uint8', 'int16', 'int32', 'int64', 'bool', 'float64']) {
      const { bytes } = dtypeOf(dtype)
      const data = Uint8Array.from({ length: 512 * bytes }, (_, at) =>
        at % bytes === 0 ? at % 2 : 0,
      )
      const given = row({ dtype, data, shape: [512] })
      const encoded = encode('lossless', given)
      expect(encoded.encoding).toBe('bytes-zstd-1')
      expect(decode(encoded)).toEqual(data)
    }
  })

  it('leaves noise, and rows too small to gain, as they are', () => {
    const next = randoms(5)
    const noise = row({
      data: Uint8Array.from({ length: 4096 }, () => next() * 256),
      shape: [1, 1024],
    })
    expect(encode('lossless', noise)).toBe(noise)
    const small = rowOf('float32', activations(32), 32)
    expect(encode('lossless', small)).toBe(small)
  })
})

describe('the error-bounded codec', () => {
  it('keeps each element within 1e-3 of the largest of its block, for every type of element', () => {
    for (const dtype of ['float32', 'float16', 'bfloat16']) {
      const width = 150
      const given = rowOf(dtype, activations(width * 40), width)
      const encoded = encode('absmax', given)
      expect(encoded.encoding).toBe('absmax-zstd-1')
      const decoded = decode(encoded)
      expect(crc32c(decoded)).toBe(encoded.crc32c)
      const before = numbers(dtype, given.data)
      const after = numbers(dtype, decoded)
      let worst = 0
      for (let start = 0; start < before.length; start += width) {
        for (let at = start; at < start + width; at += 64) {
          const end = Math.min(at + 64, start + width)
          const most = Math.max(...before.slice(at, end).map(Math.abs))
          for (let index = at; index < end; index += 1) {
            worst = Math.max(worst, Math.abs((before[index] ?? 0) - (after[index] ?? 0)) / most)
          }
        }
      }
      expect(worst).toBeLessThanOrEqual(1e-3)
      expect(worst).toBeGreaterThan(0)
    }
  })

  it('makes float32 less than a third', () => {
    const given = rowOf('float32', activations(576 * 64), 576)
    expect(given.data.byteLength / encode('absmax', given).data.byteLength).toBeGreaterThan(3)
  })

  it('keeps NaN, infinities and masks bit for bit, and their neighbours within the bound', () => {
    const values = activations(576 * 8)
    const special = [Number.NaN, Infinity, -Infinity, -3.4028234663852886e38]
    for (const [index, value] of special.entries()) values[index * 100] = value
    const given = rowOf('float32', values, 576)
    const encoded = encode('absmax', given)
    expect(encoded.encoding).toBe('absmax-zstd-1')
    const after = numbers('float32', decode(encoded))
    const before = numbers('float32', given.data)
    for (const index of special.keys()) expect(after[index * 100]).toBe(before[index * 100])
    expect(Math.abs((after[1] ?? 0) - (before[1] ?? 0))).toBeLessThan(0.1)
  })

  it('is lossless for elements that are no floats', () => {
    const data = Uint8Array.from({ length: 4096 }, (_, at) => (at % 4 === 0 ? at % 7 : 0))
    const encoded = encode('absmax', row({ dtype: 'int32', data, shape: [1024] }))
    expect(encoded.encoding).toBe('bytes-zstd-1')
    expect(decode(encoded)).toEqual(data)
  })

  it('leaves a row whose shape contradicts its bytes as it is', () => {
    const given = { ...rowOf('float32', activations(1000), 1000), shape: [10, 99] }
    expect(encode('absmax', given).encoding).not.toBe('absmax-zstd-1')
  })
})

describe('which codec a hook has', () => {
  it('is its own entry before the one for all, and the later of two', () => {
    const plan = planCodecs(['pattern=raw', 'all=lossless', 'v=absmax', 'v=lossless', 'k=absmax'])
    expect(['pattern', 'q', 'v', 'k'].map((hook) => plan.get(hook))).toEqual([
      'raw',
      'lossless',
      'lossless',
      'absmax',
    ])
    expect(planCodecs([]).get('q')).toBe('raw')
  })
})

describe('a payload that is no codec’s', () => {
  it('is an error at every cut, at flipped bits, and with lengths that do not fit', () => {
    for (const codec of ['lossless', 'absmax']) {
      const encoded = encode(codec, rowOf('float32', activations(576 * 2), 576))
      const check = (data: Uint8Array) => {
        try {
          const decoded = decode({ ...encoded, data })
          // Elements may differ; their number may not, and the checksum tells.
          expect(decoded.byteLength).toBe(encoded.decodedBytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Ring2Error)
          expect((error as Ring2Error).code).toBe('RING2_E_CHECKSUM')
        }
      }
      for (let length = 0; length < encoded.data.byteLength; length += 7) {
        expect(() => decode({ ...encoded, data: encoded.data.subarray(0, length) })).toThrow(
          /RING2_E_CHECKSUM/,
        )
      }
      const next = randoms(9)
      for (let turn = 0; turn < 2000; turn += 1) {
        const data = encoded.data.slice()
        // Half of them in the header and the table, where the lengths are.
        const range = turn % 2 === 0 ? 72 : data.byteLength
        const at = Math.floor(next() * range)
        data[at] = (data[at] ?? 0) ^ (1 << (turn % 8))
        check(data)
      }
    }
  })

  it('makes no more than the row says, however large a frame would become', () => {
    const given = row({ data: new Uint8Array(1 << 22), shape: [1 << 20] })
    const encoded = encode('lossless', given)
    expect(encoded.data.byteLength).toBeLessThan(2048)
    const facts = { dtype: 'float32', data_bytes: 4096 }
    const lying = encoded.data.slice()
    new DataView(lying.buffer).setUint32(8, 1024, true)
    for (let plane = 0; plane < 4; plane += 1) {
      new DataView(lying.buffer).setUint32(24 + plane * 12 + 8, 1024, true)
    }
    // The frames are not even unpacked beyond the size: that is what zlib refuses.
    const tooLarge = expect.objectContaining({ code: 'ERR_BUFFER_TOO_LARGE' })
    const refused = expect.objectContaining({ code: 'RING2_E_CHECKSUM', cause: tooLarge })
    expect(() => decodePayload('bytes-zstd-1', lying, facts)).toThrow(refused)
    expect(() => decodePayload('bytes-zstd-1', encoded.data, facts)).toThrow(/RING2_E_CHECKSUM/)
    expect(() => decodePayload('bytes-zstd-9', encoded.data, facts)).toThrow(/RING2_E_STORE/)
  })
})

describe('a payload that contradicts the bounds', () => {
  it('may not go on behind its last plane', () => {
    for (const codec of ['lossless', 'absmax']) {
      const encoded = encode(codec, rowOf('float32', activations(576 * 2), 576))
      const longer = Buffer.concat([encoded.data, Uint8Array.of(0)])
      expect(() => decode({ ...encoded, data: longer })).toThrow(
        /the end in an encoded.*1 more byte/,
      )
    }
  })

  it('is refused by its header where row and header agree on more than may be made', () => {
    const encoded = encode('lossless', rowOf('float32', activations(576 * 2), 576))
    const header = encoded.data.slice()
    const elements = 2 ** 28 + 1
    new DataView(header.buffer).setUint32(8, elements, true)
    const facts = { dtype: 'float32', data_bytes: elements * 4 }
    expect(() => decodePayload('bytes-zstd-1', header, facts)).toThrow(
      /RING2_E_CHECKSUM.*Expected at most 1073741824 bytes of elements/,
    )
  })
})

describe('the Python decoder', () => {
  it('gives the same bytes as the one here', () => {
    const rows = ['float32', 'float16', 'bfloat16'].flatMap((dtype) => {
      const values = activations(150 * 20, 3)
      values[5] = Number.NaN
      values[700] = -Infinity
      const given = rowOf(dtype, values, 150)
      return [given, encode('lossless', given), encode('absmax', given)]
    })
    const table = rows.map((one, index) => {
      writeFileSync(join(folder, `${index}.encoded`), one.data)
      return {
        encoding: one.encoding ?? 'raw',
        dtype: one.dtype,
        shape: one.shape,
        data_bytes: one.decodedBytes ?? one.data.byteLength,
        data_crc32c: one.crc32c,
      }
    })
    writeFileSync(join(folder, 'rows.json'), JSON.stringify(table))
    runPython(join(import.meta.dirname, 'decode_rows.py'), [folder])
    const decoded = readdirSync(folder).filter((name) => name.endsWith('.decoded'))
    expect(decoded).toHaveLength(rows.length)
    for (const [index, one] of rows.entries()) {
      expect(new Uint8Array(readFileSync(join(folder, `${index}.decoded`)))).toEqual(decode(one))
    }
  })
})
