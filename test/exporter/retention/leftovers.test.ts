/** Copies into the store that are not complete: nobody takes them for data, and none is left behind. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { createLogger } from '../../../exporter/logging.ts'
import { startRetention } from '../../../exporter/retention/background.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { removeLeftovers } from '../../../exporter/retention/leftovers.ts'
import { leftoverLimits } from '../../../exporter/retention/limits.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { flatName } from '../../../exporter/store/keys.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { ownPartialPath, partialPath } from '../../../exporter/store/partial.ts'
import { moveIntoPlace } from '../../../exporter/tensors/spool.ts'
import { runPython } from '../tensors/python.ts'
import { request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const folder = 'tensors/model_slug=m/date=2026-03-04/hour=05'
const keyOf = (name: string) => `${folder}/chat-${name}-01KJW1JH1Z0000000000000000.parquet`

function write(path: string, text = 'PAR1 rows of somebody'): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

/** Names that came up in a folder while something was done. */
async function namesDuring(path: string, act: () => Promise<unknown>): Promise<string[]> {
  mkdirSync(path, { recursive: true })
  const names = new Set<string>()
  const watcher = watch(path, (_, name) => names.add(name ?? ''))
  try {
    await act()
    // Events come in order: with this one, all before it have come.
    write(join(path, 'end'))
    await vi.waitUntil(() => names.has('end'), { timeout: 30_000 })
  } finally {
    watcher.close()
  }
  return [...names].filter((name) => name !== 'end')
}

function elsewhere(): string {
  const other = mkdtempSync('/dev/shm/ring2-leftovers-')
  onTestFinished(() => rmSync(other, { recursive: true, force: true }))
  return other
}

test('a copy has a hidden name until it is complete', async () => {
  const root = temporaryFolder()
  const from = write(join(elsewhere(), 'from'))
  expect(statSync(from).dev).not.toBe(statSync(root).dev)
  const store = createDirectoryStore(root)
  const path = join(root, folder)
  const copies: (() => Promise<unknown>)[] = [
    () => store.put(keyOf('put'), from),
    () => store.putBytes(keyOf('bytes'), new Uint8Array(9)),
    async () => moveIntoPlace(from, join(root, keyOf('moved')), false),
  ]
  for (const [index, copy] of copies.entries()) {
    const name = basename(keyOf(['put', 'bytes', 'moved'][index] ?? ''))
    const others = (await namesDuring(path, copy)).filter((one) => one !== name)
    expect(others).toHaveLength(1)
    expect(others[0]?.startsWith(`.${name}.`)).toBe(true)
  }
  expect(existsSync(from)).toBe(false)
  expect(readdirSync(path).filter((name) => name.endsWith('.parquet'))).toHaveLength(3)
})

test('PyArrow reads a folder in which one lies', () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row(), row({ step: 1 })], [summary()])
  const [file] = fixture.catalog.files().filter(({ dataset }) => dataset === 'tensors')
  const path = join(root, file?.key ?? '')
  for (const partial of [partialPath(path), ownPartialPath(path)]) write(partial)
  expect(readdirSync(dirname(path))).toHaveLength(3)
  const script = join(import.meta.dirname, 'read_folder.py')
  for (const read of [dirname(path), join(root, 'tensors')]) {
    expect(runPython(script, [read]).trim()).toBe('2')
  }
}, 120_000)

test('only copies that nobody writes any more are removed, also those of earlier versions', async () => {
  const root = temporaryFolder()
  const location = locateStore(root, null)
  const at = (name: string) => join(root, keyOf(name))
  const quiet = (path: string) => {
    const then = (Date.now() - leftoverLimits.quietMillis - 60_000) / 1000
    utimesSync(write(path), then, then)
    return path
  }
  const left = [
    write(partialPath(at('killed'))),
    write(`${at('earlier')}.partial`),
    quiet(ownPartialPath(at('shared'))),
    quiet(`${at('earlier')}.0123456789ab.partial`),
  ]
  write(join(location.spool, 'chat-1', flatName(keyOf('running'))))
  const kept = [
    write(partialPath(at('running'))),
    write(ownPartialPath(at('shared'))),
    write(at('file')),
    quiet(join(root, folder, 'notes.partial')),
    quiet(join(root, 'mine', '.notes.parquet.partial')),
  ]
  expect(await removeLeftovers(location)).toBe(left.length)
  expect(left.filter((path) => existsSync(path))).toEqual([])
  expect(kept.filter((path) => !existsSync(path))).toEqual([])
  expect(await removeLeftovers(location)).toBe(0)
})

test('before a bucket they are removed from the queue', async () => {
  const location = locateStore('s3://bucket/prefix', temporaryFolder())
  const file = write(join(location.queue, flatName(keyOf('waits'))))
  const left = write(partialPath(join(location.queue, flatName(keyOf('killed')))))
  expect(await removeLeftovers(location)).toBe(1)
  expect([existsSync(file), existsSync(left)]).toEqual([true, false])
})

test('a deletion leaves no payload in one', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const other = request({ traceId: traceB, requestId: 'request-2' })
  fixture.flush([row(), row({ request: other })], [summary(), summary({ request: other })])
  const { location, catalog, store } = fixture
  const [file] = catalog.files().filter(({ dataset }) => dataset === 'tensors')
  const rows = readFileSync(join(root, file?.key ?? ''))
  const left = partialPath(join(root, dirname(file?.key ?? ''), basename(keyOf('killed'))))
  writeFileSync(left, rows.subarray(0, rows.length - 9))
  const context = { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
  await deleteTrace(context, traceA, null)
  expect(existsSync(left)).toBe(false)
  expect(catalog.requests(traceB)).toHaveLength(1)
})

test('a start removes them, also where nothing is removed by age', async () => {
  const { location, catalog, store } = openFixture(temporaryFolder())
  const left = write(partialPath(join(dirname(dirname(location.catalog)), keyOf('killed'))))
  const retention = startRetention({
    context: { location, catalog, store, bucket: null, fsync: false },
    rules: null,
    logger: createLogger({ level: 'error', format: 'json' }),
    onRemoved: () => undefined,
  })
  await vi.waitUntil(() => !existsSync(left), { timeout: 30_000 })
  await retention.stop()
})
