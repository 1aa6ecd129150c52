import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { Ring2Error } from '../../../exporter/errors.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { tensorColumns, tensorPayload } from '../../../exporter/parquet/schema.ts'
import type { DeletionContext } from '../../../exporter/retention/context.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { deletionFolder } from '../../../exporter/retention/journal.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { producer, request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { asFloats, openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** Bytes that nothing else has, so that a search finds them and only them. */
const secret = new TextEncoder().encode('payload of the deleted trace: sixteen and more bytes....')
const secretText = 'payload of the deleted trace'

function secretRow(change: Partial<TensorRow> = {}): TensorRow {
  return row({ shape: [1, 14], data: secret.slice(), ...change })
}

const requestB = request({ traceId: traceB, requestId: 'request-2', attributes: { who: 'other' } })
const requestA = request({ attributes: { who: 'person-to-be-forgotten' } })

type Fixture = ReturnType<typeof openFixture>

function contextOf({ location, catalog, store }: Fixture): DeletionContext {
  return { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
}

/** Every file under the folder that holds the text. */
function filesWith(folder: string, text: string): string[] {
  const found: string[] = []
  for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const path = join(folder, entry)
    if (statSync(path).isFile() && readFileSync(path).includes(text)) found.push(entry)
  }
  return found
}

async function allRows({ store }: { store: ObjectStore }) {
  const source = createParquetSource(store)
  const names = [...tensorColumns.map(({ name }) => name), tensorPayload.name]
  const rows: Record<string, unknown>[] = []
  for await (const { key } of store.list('tensors/')) {
    rows.push(...(await source.read(key, names, 0, await source.rows(key))))
  }
  return rows.sort((a, b) => Number(a.layer) - Number(b.layer) || Number(a.step) - Number(b.step))
}

function mixed(fixture: Fixture): void {
  const other = (layer: number, step: number) =>
    row({
      request: requestB,
      layer,
      step,
      statistics: { l2Mean: 1.5 + step, entropyMean: Number.NaN },
      nonfinite: step,
    })
  fixture.flush(
    [
      ...[0, 1].flatMap((layer) => [0, 1].map((step) => other(layer, step))),
      ...[0, 1].map((layer) => secretRow({ request: requestA, layer })),
    ],
    [summary({ request: requestA }), summary({ request: requestB })],
  )
}

async function codeOf(act: Promise<unknown>): Promise<string> {
  try {
    await act
    return 'no error'
  } catch (error) {
    return error instanceof Ring2Error ? error.code : String(error)
  }
}

describe('Deleting a trace', () => {
  test('leaves none of its bytes in any file of the store', async () => {
    const root = temporaryFolder()
    const fixture = openFixture(root)
    mixed(fixture)
    expect(filesWith(root, secretText)).not.toEqual([])
    const report = await deleteTrace(contextOf(fixture), traceA, null)
    expect(report).toMatchObject({ requests: 1, tensors: 2, bytes: 2 * secret.byteLength })
    expect(filesWith(root, secretText)).toEqual([])
    expect(filesWith(root, traceA)).toEqual([])
    expect(filesWith(root, 'person-to-be-forgotten')).toEqual([])
    expect(fixture.catalog.requests(traceA)).toEqual([])
  })

  test('keeps every column and byte of the rows of others, in their order', async () => {
    const fixture = openFixture(temporaryFolder())
    mixed(fixture)
    const before = (await allRows(fixture)).filter((one) => one.trace_id === traceB)
    await deleteTrace(contextOf(fixture), traceA, null)
    expect(await allRows(fixture)).toEqual(before)
    const opened = await fixture.reader().open(query({ traceId: traceB, layer: 1 }))
    expect(asFloats(await opened.read())).toHaveLength(opened.plan.bytes / 4)
    expect(fixture.catalog.requests(traceB)).toHaveLength(1)
  })

  test('cuts what stays into parts of bounded size', async () => {
    const fixture = openFixture(temporaryFolder())
    mixed(fixture)
    const before = (await allRows(fixture)).filter((one) => one.trace_id === traceB)
    await deleteTrace({ ...contextOf(fixture), partBytesMax: 32 }, traceA, null)
    const files = fixture.catalog.files().filter(({ dataset }) => dataset === 'tensors')
    expect(files.map(({ rows }) => rows)).toEqual([2, 2])
    expect(await allRows(fixture)).toEqual(before)
  })

  test('removes a file that holds nothing else', async () => {
    const fixture = openFixture(temporaryFolder())
    fixture.flush([secretRow({ request: requestA })], [summary({ request: requestA })])
    const report = await deleteTrace(contextOf(fixture), traceA, null)
    expect(report).toMatchObject({ files_removed: 2, files_rewritten: 0 })
    expect(fixture.catalog.files()).toEqual([])
  })

  test('of one request leaves the others of the trace', async () => {
    const fixture = openFixture(temporaryFolder())
    const second = request({ requestId: 'request-9' })
    fixture.flush(
      [secretRow({ request: requestA }), row({ request: second })],
      [summary({ request: requestA }), summary({ request: second })],
    )
    await deleteTrace(contextOf(fixture), traceA, 'request-1')
    expect(fixture.catalog.requests(traceA).map((one) => one.request_id)).toEqual(['request-9'])
    expect((await allRows(fixture)).map((one) => one.request_id)).toEqual(['request-9'])
  })

  test('removes the same rows by the id of a caller that was known late', async () => {
    for (const id of [traceA, traceB]) {
      const root = temporaryFolder()
      const fixture = openFixture(root)
      fixture.flush([secretRow({ request: requestA })], [summary({ request: requestA })])
      const late = { ...requestA, traceId: traceB, storedTraceId: traceA }
      fixture.sink.moved(summary({ request: late }))
      fixture.flush([])
      await deleteTrace(contextOf(fixture), id, null)
      expect(fixture.catalog.files()).toEqual([])
      expect(filesWith(root, traceA)).toEqual([])
      expect(filesWith(root, traceB)).toEqual([])
    }
  })

  test('leaves a catalogue that is made again as it is', async () => {
    const fixture = openFixture(temporaryFolder())
    mixed(fixture)
    await deleteTrace(contextOf(fixture), traceA, null)
    const held = () => [fixture.catalog.files(), fixture.catalog.requests(traceB)]
    const before = held()
    await rebuildCatalog(fixture.store, fixture.location.catalog)
    expect(held()).toEqual(before)
  })

  test('that the store does not know is an error, and so is a second time', async () => {
    const fixture = openFixture(temporaryFolder())
    const context = contextOf(fixture)
    expect(await codeOf(deleteTrace(context, traceA, null))).toBe('RING2_E_TRACE_UNKNOWN')
    mixed(fixture)
    expect(await codeOf(deleteTrace(context, traceA, 'request-2'))).toBe('RING2_E_TRACE_UNKNOWN')
    await deleteTrace(context, traceA, null)
    expect(await codeOf(deleteTrace(context, traceA, null))).toBe('RING2_E_TRACE_UNKNOWN')
  })

  test('does not touch names that other ids are a pattern of', async () => {
    const fixture = openFixture(temporaryFolder())
    mixed(fixture)
    for (const id of ['%', '*', 'request-_', '../request-1', "' OR 1=1 --"]) {
      expect(await codeOf(deleteTrace(contextOf(fixture), traceA, id))).toBe(
        'RING2_E_TRACE_UNKNOWN',
      )
    }
    expect(await allRows(fixture)).toHaveLength(6)
  })
})

describe('A deletion is refused', () => {
  test('while the request has not ended', async () => {
    const fixture = openFixture(temporaryFolder())
    fixture.flush([secretRow({ request: requestA })])
    mkdirSync(fixture.location.spool, { recursive: true })
    const checkpoint = { version: 1, registry: { requests: [{ info: requestA }] } }
    writeFileSync(
      join(fixture.location.spool, 'chat-1.checkpoint.json'),
      JSON.stringify(checkpoint),
    )
    expect(await codeOf(deleteTrace(contextOf(fixture), traceA, null))).toBe('RING2_E_UNSETTLED')
    expect(await allRows(fixture)).toHaveLength(1)
    expect(await codeOf(deleteTrace(contextOf(fixture), traceA, 'request-1'))).toBe(
      'RING2_E_UNSETTLED',
    )
  })

  test('while rows of the trace wait in the spool', async () => {
    const fixture = openFixture(temporaryFolder())
    mixed(fixture)
    fixture.sink.append(secretRow({ request: requestA, step: 7 }))
    const prepared = fixture.sink.prepare(producer)
    expect(await codeOf(deleteTrace(contextOf(fixture), traceA, null))).toBe('RING2_E_UNSETTLED')
    if (prepared.status !== 'success') throw prepared.error
    fixture.sink.publish(prepared.value)
    const report = await deleteTrace(contextOf(fixture), traceA, null)
    expect(report.tensors).toBe(3)
  })
})

/** A context that fails at the n-th change, as a crash would, and at every one after it. */
function failingAt(context: DeletionContext, change: number): DeletionContext {
  let changes = 0
  const crash = () => {
    changes += 1
    if (changes >= change) throw new Error('the process has ended')
  }
  const { store, catalog } = context
  return {
    ...context,
    store: {
      ...store,
      size: (key) => {
        crash()
        return store.size(key)
      },
      delete: (key) => {
        crash()
        return store.delete(key)
      },
    },
    catalog: {
      ...catalog,
      add: (description, imported) => {
        crash()
        catalog.add(description, imported)
      },
      remove: (key) => {
        crash()
        catalog.remove(key)
      },
    },
  }
}

describe('A deletion that is interrupted', () => {
  test('at any change of the store loses no other row, doubles none, and is finished', async () => {
    for (let change = 1; ; change++) {
      const root = temporaryFolder()
      const fixture = openFixture(root)
      mixed(fixture)
      const before = (await allRows(fixture)).filter((one) => one.trace_id === traceB)
      const context = contextOf(fixture)
      const failing = { ...failingAt(context, change), partBytesMax: 32 }
      const code = await codeOf(deleteTrace(failing, traceA, null))
      if (code === 'no error') {
        expect(change).toBeGreaterThan(10)
        return
      }
      const leftover = join(deletionFolder(fixture.location), 'part.parquet.partial')
      writeFileSync(leftover, 'rows that a killed process was writing')
      expect(code).toBe('RING2_E_DELETION')
      // What readers get through the catalogue is whole at every moment.
      const listed = await fixture
        .reader()
        .list({ traceId: traceB, requestId: null, hook: null, layer: null })
      expect(listed).toHaveLength(before.length)
      const report = await deleteTrace(context, traceA, null)
      expect(report).toMatchObject({ resumed: true, tensors: 2, requests: 1 })
      expect(await allRows(fixture)).toEqual(before)
      expect(filesWith(root, secretText)).toEqual([])
      expect(filesWith(root, traceA)).toEqual([])
      expect(readdirSync(deletionFolder(fixture.location))).toEqual(['lock'])
    }
  })

  test('by kill -9 is finished by whoever deletes next', async () => {
    for (const killAt of [2, 3, 4, 5]) {
      const root = temporaryFolder()
      const fixture = openFixture(root)
      mixed(fixture)
      const before = (await allRows(fixture)).filter((one) => one.trace_id === traceB)
      const child = join(import.meta.dirname, 'delete.child.ts')
      const killed = spawnSync(process.execPath, [child, root, traceA, String(killAt)])
      expect(killed.signal).toBe('SIGKILL')
      const report = await deleteTrace(contextOf(fixture), traceA, null)
      expect(report).toMatchObject({ resumed: true, tensors: 2, requests: 1 })
      expect(await allRows(fixture)).toEqual(before)
      expect(filesWith(root, secretText)).toEqual([])
      expect(filesWith(root, traceA)).toEqual([])
    }
  }, 120_000)

  test('is finished also after the catalogue was made again in between', async () => {
    for (const change of [1, 2, 4, 6, 8, 10]) {
      const root = temporaryFolder()
      const fixture = openFixture(root)
      mixed(fixture)
      const before = (await allRows(fixture)).filter((one) => one.trace_id === traceB)
      const context = contextOf(fixture)
      await codeOf(deleteTrace(failingAt(context, change), traceA, null))
      await rebuildCatalog(fixture.store, fixture.location.catalog)
      await codeOf(deleteTrace(context, traceA, null))
      expect(await allRows(fixture)).toEqual(before)
      expect(filesWith(root, traceA)).toEqual([])
      const again = openCatalog(fixture.location.catalog)
      expect(again.requests(traceA)).toEqual([])
      expect(again.requests(traceB)).toHaveLength(1)
      again.close()
    }
  })
})
