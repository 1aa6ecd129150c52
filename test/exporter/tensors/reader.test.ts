import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { floats, otherModel, otherProducer, request, row, summary, traceB } from './rows.ts'
import { asFloats, openFixture, query } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

test('a tensor comes back stitched over the files of several flushes', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row({ tokenStart: 0, tokenEnd: 2, shape: [2, 2], data: floats(1, 2, 3, 4) })])
  fixture.flush(
    [row({ tokenStart: 2, tokenEnd: 3, step: 1, shape: [1, 2], data: floats(5, 6) })],
    [summary()],
  )
  const opened = await fixture.reader().open(query())
  expect(opened.requestId).toBe('request-1')
  expect(opened.plan.shape).toEqual([3, 2])
  expect(opened.plan.completeness).toBe('complete')
  expect(asFloats(await opened.read())).toEqual([1, 2, 3, 4, 5, 6])
})

test('the same row delivered twice is read once', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()])
  fixture.flush([row()])
  const opened = await fixture.reader().open(query())
  expect(opened.plan.shape).toEqual([1, 4])
  expect(await fixture.reader().list({ ...listAll })).toHaveLength(1)
})

const listAll = { traceId: query().traceId, requestId: null, hook: null, layer: null }

test('rows are listed with shapes and statistics, limited by hook and layer', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([
    row({ statistics: { l2Mean: 2.5 } }),
    row({ layer: 1 }),
    row({ hook: 'final_logits', layer: -1 }),
  ])
  const all = await fixture.reader().list(listAll)
  expect(all.map((one) => [one.hook, one.layer])).toEqual([
    ['final_logits', -1],
    ['resid_pre', 0],
    ['resid_pre', 1],
  ])
  expect(all[1]).toMatchObject({ shape: [1, 4], data_bytes: 16, l2_mean: 2.5, nonfinite: 0 })
  const some = await fixture.reader().list({ ...listAll, hook: 'resid_pre', layer: 1 })
  expect(some).toHaveLength(1)
})

test('several requests of one trace need a request id, and the error names them', async () => {
  const fixture = openFixture(temporaryFolder())
  const other = request({ requestId: 'request/2?*' })
  fixture.flush([row(), row({ request: other }), row({ request: other, layer: 1 })])
  const reader = fixture.reader()
  await expect(reader.open(query())).rejects.toMatchObject({
    code: 'RING2_E_QUERY',
    expected: expect.stringMatching(/request-1, request\/2\?\*/),
  })
  expect((await reader.open(query({ requestId: 'request/2?*' }))).requestId).toBe('request/2?*')
  // Only one of them has this layer, so there is nothing to choose.
  expect((await reader.open(query({ layer: 1 }))).requestId).toBe('request/2?*')
  await expect(reader.open(query({ requestId: 'nobody' }))).rejects.toMatchObject({
    code: 'RING2_E_TENSOR_UNKNOWN',
  })
})

const chat = 'chat-00c0ffee00c0ffee'
const draft = 'draft-00c0ffee00c0ffee'
const ofDraft = { model: otherModel, producer: otherProducer }

test('two models under one request are both listed, and a fetch has to name one', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()], [summary()])
  // Same request, hook, layer, tokens and step: only the producer tells them apart.
  fixture.flush([row({ ...ofDraft, data: floats(5, 6, 7, 8) })], [], otherProducer)
  const reader = fixture.reader()
  const listed = await reader.list(listAll)
  expect(listed.map((one) => one.producer)).toEqual([chat, draft])
  const ofOne = await reader.list({ ...listAll, producer: draft })
  expect(ofOne.map((one) => one.producer)).toEqual([draft])
  await expect(reader.open(query())).rejects.toMatchObject({
    code: 'RING2_E_QUERY',
    expected: expect.stringMatching(
      /chat-\w+ \(model HuggingFaceTB\/SmolLM2-135M-Instruct\), draft-\w+ \(model draft\/model\)/,
    ),
  })
  const first = await reader.open(query({ producer: chat }))
  expect(asFloats(await first.read())).toEqual([1, 2, 3, 4])
  const second = await reader.open(query({ producer: draft }))
  expect(asFloats(await second.read())).toEqual([5, 6, 7, 8])
  await expect(reader.open(query({ producer: 'nobody' }))).rejects.toMatchObject({
    code: 'RING2_E_TENSOR_UNKNOWN',
    expected: expect.stringContaining(draft),
  })
})

test('completeness is judged by the summary of the producer that is read', async () => {
  const fixture = openFixture(temporaryFolder())
  const whole = { tokenEnd: 3, shape: [3, 1], data: floats(1, 2, 3) }
  fixture.flush([row(whole)], [summary()])
  fixture.flush([row({ ...ofDraft, ...whole })], [], otherProducer)
  const state = async (producer: string) =>
    (await fixture.reader().open(query({ producer }))).plan.completeness
  expect([await state(chat), await state(draft)]).toEqual(['complete', 'unknown'])
  const [prefill] = summary().phases
  if (prefill === undefined) throw new Error('the summary has no prefill')
  const longer = summary({ ...ofDraft, phases: [{ ...prefill, tokenEnd: 9 }] })
  fixture.flush([], [longer], otherProducer)
  expect([await state(chat), await state(draft)]).toEqual(['complete', 'incomplete'])
})

test('ranks that are producers of their own are told apart by the rank alone', async () => {
  const fixture = openFixture(temporaryFolder())
  const shard = { hook: 'q', shape: [1, 2, 2] }
  const second = { producer: otherProducer, ranks: { tp: 1, pp: 0, dp: 0, ep: 0 } }
  fixture.flush([row(), row({ ...shard, data: floats(1, 2, 3, 4) })])
  fixture.flush(
    [row(second), row({ ...shard, ...second, data: floats(5, 6, 7, 8) })],
    [],
    otherProducer,
  )
  const reader = fixture.reader()
  expect((await reader.open(query())).plan.shape).toEqual([1, 4])
  await expect(reader.open(query({ hook: 'q' }))).rejects.toMatchObject({
    expected: expect.stringContaining('rank, as q is sharded'),
  })
  const opened = await reader.open(query({ hook: 'q', rank: { tp: 1 } }))
  expect(asFloats(await opened.read())).toEqual([5, 6, 7, 8])
  // Another model is never taken for a further rank of this one.
  const third = { ...otherProducer, segment: 'third' }
  const strange = { ...ofDraft, producer: third, ranks: { ...second.ranks, tp: 3 } }
  fixture.flush([row(strange)], [], third)
  await expect(reader.open(query())).rejects.toMatchObject({
    expected: expect.stringContaining('producer, as 3 producers'),
  })
})

test('unknown traces, hooks and layers are told apart', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()])
  const reader = fixture.reader()
  await expect(reader.open(query({ traceId: traceB }))).rejects.toMatchObject({
    code: 'RING2_E_TRACE_UNKNOWN',
  })
  await expect(reader.open(query({ hook: 'pattern' }))).rejects.toMatchObject({
    code: 'RING2_E_TENSOR_UNKNOWN',
    expected: expect.stringContaining('resid_pre'),
  })
  await expect(reader.open(query({ layer: 7 }))).rejects.toMatchObject({
    code: 'RING2_E_TENSOR_UNKNOWN',
    expected: expect.stringContaining('a layer of resid_pre: 0'),
  })
})

test('a sharded tensor needs a rank, a replicated one does not', async () => {
  const fixture = openFixture(temporaryFolder())
  const second = { tp: 1, pp: 0, dp: 0, ep: 0 }
  const shard = { hook: 'q', shape: [1, 2, 2] }
  fixture.flush([
    row({ ...shard, data: floats(1, 2, 3, 4) }),
    row({ ...shard, data: floats(5, 6, 7, 8), ranks: second }),
    row(),
    row({ ranks: second }),
  ])
  const reader = fixture.reader()
  await expect(reader.open(query({ hook: 'q' }))).rejects.toMatchObject({
    code: 'RING2_E_QUERY',
    expected: expect.stringContaining('tp:1,pp:0,dp:0,ep:0'),
  })
  const opened = await reader.open(query({ hook: 'q', rank: { tp: 1 } }))
  expect(asFloats(await opened.read())).toEqual([5, 6, 7, 8])
  await expect(reader.open(query({ hook: 'q', rank: { tp: 2 } }))).rejects.toMatchObject({
    code: 'RING2_E_QUERY',
  })
  expect((await reader.open(query())).plan.shape).toEqual([1, 4])
})

test('a damaged payload is an error, and other rows of the file still come', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row({ data: floats(1, 2, 3, 4) }), row({ layer: 1, data: floats(5, 6, 7, 8) })])
  damage(root, floats(5, 6, 7, 8))
  const reader = fixture.reader()
  expect(asFloats(await (await reader.open(query())).read())).toEqual([1, 2, 3, 4])
  const opened = await reader.open(query({ layer: 1 }))
  await expect(opened.read()).rejects.toMatchObject({
    code: 'RING2_E_CHECKSUM',
    actual: expect.stringMatching(/row 1 of tensors\/model_slug=/),
  })
})

/** Flips one bit of the payload in the only tensor file. */
function damage(root: string, payload: Uint8Array): void {
  const path = tensorFile(root)
  const bytes = readFileSync(path)
  const at = bytes.indexOf(payload)
  expect(at).toBeGreaterThan(0)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(path, bytes)
}

function tensorFile(root: string): string {
  const names = readdirSync(join(root, 'tensors'), { recursive: true }).map(String)
  return join(root, 'tensors', names.find((name) => name.endsWith('.parquet')) ?? '')
}

test('a file that is cut off, or gone, is an error that names it', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()])
  const path = tensorFile(root)
  const bytes = readFileSync(path)
  writeFileSync(path, bytes.subarray(0, bytes.length - 20))
  await expect(fixture.reader().open(query())).rejects.toMatchObject({
    code: 'RING2_E_STORE',
    message: expect.stringContaining('tensors/model_slug='),
  })
  writeFileSync(path, bytes)
  expect((await fixture.reader().open(query())).plan.shape).toEqual([1, 4])
  fixture.sink.close()
  writeFileSync(path, '')
  await expect(fixture.reader().open(query())).rejects.toMatchObject({ code: 'RING2_E_STORE' })
})

test('a catalogue that names the wrong rows never yields another tensor', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row(), row({ layer: 1 })])
  const [file] = fixture.catalog.files()
  const series = fixture.catalog.series({ traceId: query().traceId })
  const swapped = series.map((one) => ({ ...one, layer: 1 - one.layer }))
  const description = { key: file?.key ?? '', bytes: 1, rows: 2, dataset: 'tensors' as const }
  fixture.catalog.add({ ...description, series: swapped, requests: [] })
  await expect(fixture.reader().open(query())).rejects.toMatchObject({
    code: 'RING2_E_STORE',
    action: expect.stringContaining('catalog rebuild'),
  })
})

test('an answer beyond the bound is refused before any payload is read', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row({ tokenEnd: 1024, shape: [1024, 256], data: new Uint8Array(1024 * 1024) })])
  const reader = fixture.reader({ tensorBytesMax: 1024 * 1024 - 1 })
  const before = fixture.counts.bytes
  await expect(reader.open(query())).rejects.toMatchObject({
    code: 'RING2_E_TOO_LARGE',
    action: expect.stringContaining('tokens=a:b'),
  })
  expect(fixture.counts.bytes - before).toBeLessThan(128 * 1024)
  const part = await reader.open(query({ tokens: { start: 0, end: 4 } }))
  expect((await part.read()).byteLength).toBe(4096)
  const narrow = fixture.reader({ sourceBytesMax: 1024 })
  await expect(narrow.open(query({ tokens: { start: 0, end: 4 } }))).rejects.toMatchObject({
    code: 'RING2_E_TOO_LARGE',
  })
})

test('the fingerprint changes with the bytes and the selection, and nothing else', async () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row({ tokenEnd: 2, shape: [2, 2] })])
  const reader = fixture.reader()
  const first = (await reader.open(query())).fingerprint
  expect((await fixture.reader().open(query())).fingerprint).toBe(first)
  const part = (await reader.open(query({ tokens: { start: 0, end: 1 } }))).fingerprint
  expect(part).not.toBe(first)
  fixture.flush([row({ tokenStart: 2, tokenEnd: 3, step: 1, shape: [1, 2], data: floats(9, 9) })])
  expect((await reader.open(query())).fingerprint).not.toBe(first)
})

function traceOf(file: number, index: number): string {
  const [head, middle] = [`${file}`.padStart(8, '0'), `${index}`.padStart(23, '0')]
  return `${head}${middle}f`
}

test('what a fetch reads grows with its answer and not with the file or the store', async () => {
  const perRow = 8 * 1024
  const cost = async (rows: number, files: number) => {
    const fixture = openFixture(temporaryFolder())
    for (let file = 0; file < files; file += 1) {
      fixture.flush(
        Array.from({ length: rows }, (_, index) => {
          const traceId = traceOf(file, index)
          const data = new Uint8Array(perRow).fill(index)
          return row({ request: request({ traceId }), shape: [1, perRow / 4], data })
        }),
      )
    }
    const traceId = traceOf(0, Math.floor(rows / 2))
    const before = { ...fixture.counts }
    const opened = await fixture.reader().open(query({ traceId }))
    expect((await opened.read()).byteLength).toBe(perRow)
    return fixture.counts.bytes - before.bytes
  }
  const small = await cost(64, 1)
  const longer = await cost(4096, 1)
  const more = await cost(64, 16)
  // 32 MiB in one file, and sixteen files, cost no more than page and footer granularity.
  expect(longer).toBeLessThan(small + 512 * 1024)
  expect(longer).toBeLessThan((4096 * perRow) / 16)
  expect(more).toBe(small)
})
