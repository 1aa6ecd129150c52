import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { createRowEncoder } from '../../../exporter/codecs/encode.ts'
import { planCodecs } from '../../../exporter/codecs/plan.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { runPython } from '../tensors/python.ts'
import { producer, row } from '../tensors/rows.ts'
import { openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const width = 128

/** Two steps of four tokens each. */
function rowsOf(hook: string) {
  return [0, 1].map((step) => {
    const values = Float32Array.from(
      { length: 4 * width },
      (_, index) => Math.sin(index * 1.7 + step) * (index % 50 === 0 ? 40 : 1),
    )
    return row({
      hook,
      step,
      tokenStart: step * 4,
      tokenEnd: step * 4 + 4,
      shape: [4, width],
      data: new Uint8Array(values.buffer),
    })
  })
}

function store(root: string, codecs: readonly string[]) {
  const fixture = openFixture(root)
  const sink = createTensorSink({ location: fixture.location, fsync: false, codecs })
  for (const hook of ['resid_pre', 'ln1', 'mlp_out'])
    for (const one of rowsOf(hook)) sink.append(one)
  const pending = sink.pending().bytes
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  const published = sink.publish(prepared.value)
  if (published.status !== 'success') throw published.error
  sink.close()
  return { ...fixture, pending }
}

function bytesOf(hook: string): Uint8Array {
  return new Uint8Array(Buffer.concat(rowsOf(hook).map(({ data }) => data)))
}

it('stores each hook by its codec and gives it back decoded, checked and stitched', async () => {
  const { reader, catalog, pending } = store(temporaryFolder(), [
    'resid_pre=absmax',
    'ln1=lossless',
  ])
  expect(pending).toBeLessThan(3 * 8 * width * 4)
  const read = async (hook: string) => (await reader().open(query({ hook }))).read()
  expect(await read('ln1')).toEqual(bytesOf('ln1'))
  expect(await read('mlp_out')).toEqual(bytesOf('mlp_out'))
  const bounded = await read('resid_pre')
  const encode = createRowEncoder(planCodecs(['resid_pre=absmax']))
  expect(rowsOf('resid_pre').map((one) => encode(one).encoding)).toEqual(
    Array.from({ length: 2 }, () => 'absmax-zstd-1'),
  )
  const before = new Float32Array(bytesOf('resid_pre').buffer)
  const after = new Float32Array(bounded.slice().buffer)
  const worst = before.reduce((most, value, index) => {
    return Math.max(most, Math.abs(value - (after[index] ?? Number.NaN)))
  }, 0)
  expect(worst).toBeGreaterThan(0)
  expect(worst).toBeLessThanOrEqual(1e-3 * 40)
  const list = await reader().list({
    traceId: query().traceId,
    requestId: null,
    hook: null,
    layer: null,
  })
  const kinds = new Map(list.map(({ hook, encoding }) => [hook, encoding]))
  expect(Object.fromEntries(kinds)).toEqual({
    resid_pre: 'absmax-zstd-1',
    ln1: 'bytes-zstd-1',
    mlp_out: 'raw',
  })
  expect(list.every(({ data_bytes }) => data_bytes === 4 * width * 4)).toBe(true)
  catalog.close()
})

it('names the row whose encoded payload was damaged in the file', async () => {
  const root = temporaryFolder()
  const { reader, catalog } = store(root, ['all=lossless'])
  const file = readdirSync(join(root, 'tensors'), { recursive: true })
    .map(String)
    .find((name) => name.endsWith('.parquet'))
  const path = join(root, 'tensors', file ?? '')
  const bytes = readFileSync(path)
  const mark = bytes.indexOf('R2CD')
  bytes[mark + 8] = (bytes[mark + 8] ?? 0) ^ 1
  writeFileSync(path, bytes)
  const reads = ['resid_pre', 'ln1', 'mlp_out'].map(async (hook) =>
    (await reader().open(query({ hook }))).read(),
  )
  const failed = (await Promise.allSettled(reads)).filter(({ status }) => status === 'rejected')
  expect(failed).toHaveLength(1)
  expect(String((failed[0] as PromiseRejectedResult).reason)).toMatch(
    /RING2_E_CHECKSUM.*encoded payload.*row \d+ of tensors/,
  )
  catalog.close()
})

it('is read by PyArrow and decoded by the Python package to the same numbers', async () => {
  const root = temporaryFolder()
  const { reader, catalog } = store(root, ['resid_pre=absmax', 'ln1=lossless'])
  for (const hook of ['resid_pre', 'ln1', 'mlp_out']) {
    const expected = await (await reader().open(query({ hook }))).read()
    writeFileSync(join(root, `${hook}.expected`), expected)
  }
  expect(runPython(join(import.meta.dirname, 'decode_store.py'), [root]).trim()).toBe('6 rows')
  catalog.close()
})
