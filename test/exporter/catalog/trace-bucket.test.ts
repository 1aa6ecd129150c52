/**
 * Traces of a real S3 server, with the requests counted on the wire: found and fetched from a machine
 * that has no catalogue, by the commands as users run them.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { knownFileOf, openCatalogOf } from '../../../exporter/catalog/catalog.ts'
import { createTraceFinder } from '../../../exporter/catalog/trace-finder.ts'
import { createTracePublisher } from '../../../exporter/catalog/trace-publisher.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { openStore } from '../../../exporter/store/open-store.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'
import { createTensorReader } from '../../../exporter/tensors/reader.ts'
import { createTensorSink } from '../../../exporter/tensors/tensor-sink.ts'
import { rightCredentials } from '../store/buckets.ts'
import { type FaultProxy, startFaultProxy } from '../store/fault-proxy.ts'
import { startWeed, type Weed } from '../store/weed.ts'
import { floats, producer, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { asFloats, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const project = join(import.meta.dirname, '../../..')
vi.setConfig({ testTimeout: 120_000 })

let folder: string
let weed: Weed
let proxy: FaultProxy

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ring2-weed-'))
  weed = await startWeed(folder)
  proxy = await startFaultProxy(weed.endpoint)
}, 120_000)

afterAll(async () => {
  await proxy?.stop()
  await weed?.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** The store's URL through the proxy, which counts. */
function storeUrl(prefix: string): string {
  return weed
    .storeUrl(prefix)
    .replace(/endpoint=[^&]*/, `endpoint=${encodeURIComponent(proxy.endpoint)}`)
}

/** One exporter's state over the bucket. */
async function openMachine(prefix: string) {
  const location = locateStore(storeUrl(prefix), temporaryFolder())
  const { store, bucket } = await openStore(location)
  if (bucket === null) throw new Error('not a bucket')
  const catalog = openCatalogOf(location)
  onTestFinished(() => {
    catalog.close()
    store.close()
  })
  return { location, store, bucket, catalog }
}

/** Stores two layers of one request, uploads them and writes their index. */
async function fill(prefix: string): Promise<void> {
  const { location, bucket, catalog } = await openMachine(prefix)
  const sink = createTensorSink({ location, fsync: false })
  sink.append(row())
  sink.append(row({ layer: 1, data: floats(5, 6, 7, 8) }))
  sink.append(
    row({
      layer: 1,
      step: 1,
      tokenStart: 1,
      tokenEnd: 3,
      shape: [2, 4],
      data: floats(1, 2, 3, 4, 5, 6, 7, 8),
    }),
  )
  sink.finish(summary())
  const prepared = sink.prepare(producer)
  if (prepared.status !== 'success') throw prepared.error
  expect(sink.publish(prepared.value).status).toBe('success')
  sink.close()
  const onError = (error: Error) => {
    throw error
  }
  const uploader = createUploader({ queue: location.queue, bucket, onError })
  expect(await uploader.flush(30_000)).toBe(0)
  await uploader.stop()
  const publisher = createTracePublisher({ catalog, bucket, queue: location.queue, onError })
  expect(await publisher.flush()).toBe(0)
}

function askedSince(before: number): string[] {
  return proxy
    .asked()
    .slice(before)
    .map(({ method, url }) => {
      const path = url.split('?')[0]?.split('/').slice(3).join('/') ?? ''
      return `${method} ${url.includes('list-type=2') ? 'LIST' : (path.split('/')[0] ?? '')}`
    })
}

test('a tensor of another exporter costs a listing, its index, its tail and its payload', async () => {
  rightCredentials()
  await fill('counted')
  const { bucket, catalog, store } = await openMachine('counted')
  const before = proxy.asked().length
  expect(await createTraceFinder({ catalog, bucket }).find(traceA)).toEqual([])
  const source = createParquetSource(store, { knownFile: knownFileOf(catalog) })
  const reader = createTensorReader({ catalog, source })
  const opened = await reader.open(query({ layer: 1 }))
  expect(opened.plan.completeness).toBe('complete')
  expect(askedSince(before)).toEqual(['GET LIST', 'GET catalog', 'GET tensors'])
  expect(asFloats(await opened.read())).toEqual([5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8])
  expect(askedSince(before).slice(3)).toEqual(['GET tensors'])
  const known = proxy.asked().length
  const other = await reader.open(query({ layer: 0 }))
  await other.read()
  expect(askedSince(known)).toEqual(['GET tensors'])
})

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function command(spool: string, ...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(project, 'exporter/main.ts'), ...args], {
      env: { ...process.env, RING2_STORE_SPOOL: spool },
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}

test('fetch and ls find a trace from a machine without a catalogue', async () => {
  rightCredentials()
  await fill('elsewhere')
  const spool = join(temporaryFolder(), 'state')
  const store = ['--store', storeUrl('elsewhere')]
  const out = join(temporaryFolder(), 'one.npy')
  const fetch = ['fetch', traceA, '--hook', 'resid_pre', '--layer', '1', '-o', out]
  const fetched = await command(spool, ...fetch, ...store)
  expect(fetched).toMatchObject({ code: 0, stderr: '' })
  const bytes = readFileSync(out)
  expect(asFloats(new Uint8Array(bytes.subarray(-48)))).toEqual([
    5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
  ])
  const other = join(temporaryFolder(), 'other')
  const listed = await command(other, 'ls', traceA, ...store, '--json')
  expect(listed).toMatchObject({ code: 0 })
  expect(JSON.parse(listed.stdout)).toMatchObject({ trace_id: traceA })
  const unknown = await command(
    other,
    'fetch',
    traceB,
    '--hook',
    'resid_pre',
    '--layer',
    '0',
    ...store,
  )
  expect(unknown).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('RING2_E_TRACE_UNKNOWN'),
  })
  const all = await command(other, 'ls', ...store)
  expect(all.stderr).toContain('only traces that were fetched here')
})

test('a bucket that cannot be reached: what is known is answered and told, else it is an error', async () => {
  rightCredentials()
  await fill('unreached')
  const spool = join(temporaryFolder(), 'state')
  const store = ['--store', storeUrl('unreached')]
  expect(await command(spool, 'ls', traceA, ...store)).toMatchObject({ code: 0 })
  proxy.behave(() => ({ kind: 'answer', status: 403, code: 'AccessDenied' }))
  onTestFinished(() => proxy.behave(() => null))
  const known = await command(spool, 'ls', traceA, ...store)
  expect(known).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('may not be all there is'),
  })
  expect(known.stdout).toContain('request-1')
  const unknown = await command(spool, 'ls', traceB, ...store)
  expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('AccessDenied') })
})

test('catalog rebuild writes the indexes of a bucket again', async () => {
  rightCredentials()
  await fill('rebuilt')
  const { bucket } = await openMachine('rebuilt')
  const keys: string[] = []
  for await (const { key } of bucket.list('catalog/')) keys.push(key)
  expect(keys).toHaveLength(1)
  for (const key of keys) await bucket.delete(key)
  const spool = join(temporaryFolder(), 'state')
  const rebuilt = await command(spool, 'catalog', 'rebuild', '--store', storeUrl('rebuilt'))
  expect(rebuilt).toMatchObject({ code: 0, stdout: '2 files, 4 rows\n' })
  expect(existsSync(spool)).toBe(true)
  const again: string[] = []
  for await (const { key } of bucket.list('catalog/')) again.push(key)
  // The same contents make the same object, whoever writes it.
  expect(again).toEqual(keys)
})
