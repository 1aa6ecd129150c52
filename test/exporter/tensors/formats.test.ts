import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Dtype, dtypeOf } from '../../../exporter/tensors/dtypes.ts'
import {
  answerTensor,
  type TensorFormat,
  tensorFormats,
} from '../../../exporter/tensors/formats.ts'
import { runPython } from './python.ts'
import { temporaryFolder } from './temporary-folder.ts'

const names = [
  'float32',
  'float16',
  'bfloat16',
  'float64',
  'int8',
  'uint8',
  'int16',
  'int32',
  'int64',
  'bool',
]

interface Value {
  readonly dtype: Dtype
  readonly shape: number[]
  readonly data: Uint8Array
}

const elementsOf = ({ data }: Value) => ({
  read: async () => data,
  async *stream(start: number, end: number) {
    yield data.subarray(start, end)
  },
})

async function joined(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const part of parts) all.push(part)
  return Buffer.concat(all)
}

async function encode(format: TensorFormat, value: Value, metadata = {}): Promise<Buffer> {
  const { dtype, shape } = value
  const facts = { dtype, shape, name: 'resid_pre.0', metadata }
  const answer = await answerTensor(format, facts, elementsOf(value))
  const whole = await joined(answer.stream(0, answer.size))
  expect(whole.length).toBe(answer.size)
  return whole
}

/** Twelve elements of pseudo-random bits (0 or 1 for bool), NaN and infinities among the floats. */
function tensor(name: string, shape: number[]) {
  const dtype = dtypeOf(name)
  const count = shape.reduce((result, size) => result * size, 1)
  const data = new Uint8Array(count * dtype.bytes)
  const limit = name === 'bool' ? 2 : 256
  for (let index = 0; index < data.length; index += 1) data[index] = (index * 73 + 41) % limit
  if (name === 'float16' && count > 3) data.set([0x00, 0x7c, 0x00, 0xfc, 0x01, 0x7e, 1, 0])
  if (name === 'bfloat16' && count > 3) data.set([0x80, 0x7f, 0x80, 0xff, 0xc0, 0x7f, 1, 0])
  if (name === 'float32' && count > 1) data.set([0, 0, 0x80, 0x7f, 0, 0, 0xc0, 0x7f])
  return { dtype, shape, data }
}

test('NumPy, safetensors and PyArrow read every type and shape as it was, bit for bit', async () => {
  const folder = temporaryFolder()
  const cases: Record<string, unknown>[] = []
  for (const name of names) {
    for (const shape of [[3, 4], [12], [2, 3, 2], [0, 4]]) {
      const value = tensor(name, shape)
      const base = join(folder, `${name}-${shape.join('x')}`)
      for (const format of tensorFormats) {
        const bytes = await encode(format, value, { hook: 'resid_pre', layer: 0 })
        writeFileSync(`${base}.${format}`, bytes)
      }
      const hex = Buffer.from(value.data).toString('hex')
      cases.push({ base, dtype: name, shape, hex })
    }
  }
  const list = join(folder, 'cases.json')
  writeFileSync(list, JSON.stringify(cases))
  const report = JSON.parse(runPython(join(import.meta.dirname, 'read_formats.py'), [list]))
  expect(report).toEqual({ checked: names.length * 4, wrong: [] })
})

test('JSON names NaN, infinities and integers beyond 2^53 instead of hiding them', async () => {
  const floats = new Uint8Array(new Float32Array([1.5, NaN, Infinity, -Infinity]).buffer)
  const value = { dtype: dtypeOf('float32'), shape: [2, 2], data: floats }
  const text = (await encode('json', value, { hook: 'resid_pre' })).toString()
  expect(JSON.parse(text)).toEqual({
    hook: 'resid_pre',
    data: [
      [1.5, 'NaN'],
      ['Infinity', '-Infinity'],
    ],
  })
  const large = new Uint8Array(new BigInt64Array([5n, 2n ** 60n + 1n]).buffer)
  const integers = { dtype: dtypeOf('int64'), shape: [2], data: large }
  expect(JSON.parse((await encode('json', integers)).toString())).toEqual({
    data: [5, '1152921504606846977'],
  })
})

test('a JSON answer beyond the bound is refused with what to do', async () => {
  const value = { dtype: dtypeOf('uint8'), shape: [2001, 1000], data: new Uint8Array(2_001_000) }
  await expect(encode('json', value)).rejects.toThrow(/RING2_E_TOO_LARGE.*2000000/)
})

test('any range of an encoded tensor is that part of the whole', async () => {
  const value = tensor('float32', [3, 4])
  const facts = { dtype: value.dtype, shape: value.shape, name: 't', metadata: {} }
  for (const format of tensorFormats) {
    const answer = await answerTensor(format, facts, elementsOf(value))
    const whole = await joined(answer.stream(0, answer.size))
    for (let start = 0; start < answer.size; start += 7) {
      for (const end of [start + 1, start + 50, answer.size]) {
        const part = await joined(answer.stream(start, end))
        expect(part).toEqual(whole.subarray(start, end))
      }
    }
  }
})

test('an element type of another version is refused by name', () => {
  expect(() => dtypeOf('float8_e4m3')).toThrow(/RING2_E_STORE.*float8_e4m3/)
})
