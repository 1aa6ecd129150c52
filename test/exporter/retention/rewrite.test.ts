/** Files of other versions, and columns with and without values, keep what they have when rewritten. */
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { REDACTED_ENCODING, type TensorRow } from '../../../collector/records.ts'
import { describeFile } from '../../../exporter/catalog/rebuild.ts'
import { writeParquetFile } from '../../../exporter/parquet/file-writer.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { type Column, tensorColumns, tensorPayload } from '../../../exporter/parquet/schema.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { partKeys, timeOf } from '../../../exporter/retention/rewrite.ts'
import { ulidOf } from '../../../exporter/store/queued.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { producer, request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const requestB = request({ traceId: traceB, requestId: 'request-2' })

function contextOf({ location, catalog, store }: ReturnType<typeof openFixture>) {
  return { location, catalog, store, bucket: null, fsync: true, settleMillis: 0 }
}

describe('A file that is written again', () => {
  test('keeps columns of an earlier and of a later version, and what its footer says', async () => {
    const root = temporaryFolder()
    const fixture = openFixture(root)
    const key =
      'tensors/model=m/date=2026-03-04/hour=05/chat-00c0ffee-01KJW1JH1Z0000000000000000.parquet'
    const path = join(root, key)
    mkdirSync(dirname(path), { recursive: true })
    const later: Column<TensorRow> = {
      name: 'later',
      type: 'timestamp',
      nullable: true,
      bloomFilter: false,
      value: (one) => (one.step === 1 ? null : 7 + one.step),
    }
    const earlier = tensorColumns.filter(({ name }) => !/^(margin|surprisal)_mean$/.test(name))
    writeParquetFile({
      path,
      columns: [...earlier, later],
      payload: tensorPayload,
      rows: [row(), ...[0, 1, 2].map((step) => row({ request: requestB, step }))],
      metadata: { 'ring2.schema': '1', 'ring2.producer': 'chat', other: 'kept' },
      fsync: false,
    })
    const source = createParquetSource(fixture.store)
    const bytes = (await fixture.store.size(key)) ?? 0
    fixture.catalog.add(await describeFile(source, { key, bytes }))
    const names = [...(await source.columns(key))].filter((name) => !/list|element/.test(name))
    const before = await source.read(key, names, 1, 4)

    await deleteTrace(contextOf(fixture), traceA, null)

    const [file] = fixture.catalog.files()
    expect(fixture.catalog.files()).toHaveLength(1)
    const now = file?.key ?? ''
    expect(now).toMatch(/^tensors\/model=m\/date=2026-03-04\/hour=05\/chat-00c0ffee-/)
    expect(now).not.toBe(key)
    expect(await source.columns(now)).toEqual(await source.columns(key))
    expect(await source.metadata(now)).toEqual(await source.metadata(key))
    expect(await source.read(now, names, 0, 3)).toEqual(before)
    expect(before.map((one) => one.later)).toEqual([7n, null, 9n])
  })

  test('keeps rows that a codec has encoded, and redacted ones, as they were', async () => {
    const fixture = openFixture(temporaryFolder())
    const codecs = ['resid_pre=absmax', 'ln1=lossless']
    const sink = createTensorSink({ location: fixture.location, fsync: true, codecs })
    const elements = Float32Array.from({ length: 512 }, (_, at) => Math.sin(at) * (at % 50))
    const facts = { shape: [4, 128], tokenEnd: 4, data: new Uint8Array(elements.buffer) }
    const redacted = { encoding: REDACTED_ENCODING, crc32c: 0, data: new Uint8Array(0) }
    for (const one of [request(), requestB]) {
      sink.append(row({ request: one, ...facts }))
      sink.append(row({ request: one, hook: 'ln1', ...facts }))
      sink.append(row({ request: one, hook: 'mlp_out', ...facts }))
      sink.append(row({ request: one, hook: 'pattern', ...facts, ...redacted }))
      sink.finish(summary({ request: one }))
    }
    const prepared = sink.prepare(producer)
    if (prepared.status !== 'success') throw prepared.error
    expect(sink.publish(prepared.value).status).toBe('success')
    sink.close()
    const source = createParquetSource(fixture.store)
    const names = [...tensorColumns.map(({ name }) => name), tensorPayload.name]
    const rowsNow = async () => {
      const files = fixture.catalog.files().filter(({ dataset }) => dataset === 'tensors')
      const read = files.map(async ({ key }) => source.read(key, names, 0, await source.rows(key)))
      return (await Promise.all(read)).flat()
    }
    const before = await rowsNow()
    const others = before.filter((one) => one.trace_id === traceB)
    const read = async (hook: string) =>
      (await fixture.reader().open(query({ ...requestB, hook }))).read()
    const hooks = ['resid_pre', 'ln1', 'mlp_out']
    const decoded = await Promise.all(hooks.map(read))

    await deleteTrace(contextOf(fixture), traceA, null)

    expect(before).toHaveLength(8)
    const forms = others.map(({ hook, encoding }) => `${hook} ${encoding}`).sort()
    expect(forms).toEqual([
      'ln1 bytes-zstd-1',
      'mlp_out raw',
      'pattern redacted',
      'resid_pre absmax-zstd-1',
    ])
    expect(await rowsNow()).toEqual(others)
    expect(await Promise.all(hooks.map(read))).toEqual(decoded)
    expect(decoded[1]).toEqual(facts.data)
    await expect(read('pattern')).rejects.toThrow(/RING2_E_REDACTED/)
  })

  test('keeps contexts with and without the times of a parent span', async () => {
    const fixture = openFixture(temporaryFolder())
    const caller = 'c'.repeat(32)
    const parentWindow = { startedAtMicros: 5, endedAtMicros: 9 }
    for (const [index, requestId] of ['request-1', 'request-2', 'request-3'].entries()) {
      const own = request({ requestId, storedTraceId: traceA, traceId: caller })
      fixture.sink.moved(summary({ request: index === 1 ? own : { ...own, parentWindow } }))
    }
    fixture.flush(
      [],
      ['request-1', 'request-2', 'request-3'].map((requestId) =>
        summary({ request: request({ requestId }) }),
      ),
    )
    await deleteTrace(contextOf(fixture), caller, 'request-1')
    const source = createParquetSource(fixture.store)
    const [contexts] = fixture.catalog.files().filter(({ dataset }) => dataset === 'contexts')
    const columns = ['request_id', 'parent_started_at', 'parent_ended_at']
    expect(await source.read(contexts?.key ?? '', columns, 0, 2)).toEqual([
      { request_id: 'request-2', parent_started_at: null, parent_ended_at: null },
      { request_id: 'request-3', parent_started_at: 5n, parent_ended_at: 9n },
    ])
    expect(fixture.catalog.requests(caller)).toHaveLength(2)
  })

  test('has a name of its own with the time of the old one', () => {
    const key =
      'tensors/model_slug=m/date=2026-03-04/hour=05/chat-1-01KJW1JH1Z0000000000000000.parquet'
    const keys = partKeys(key, 3)
    expect(new Set([key, ...keys]).size).toBe(4)
    for (const one of keys) expect(timeOf(ulidOf(one))).toBe(timeOf(ulidOf(key)))
    expect(new Date(timeOf(ulidOf(key))).getUTCFullYear()).toBe(2026)
  })
})
