import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { python } from '../helpers/otlp-receiver.ts'
import { modelFolder } from './processes.ts'

interface DemoRequest {
  readonly trace_id: string
  readonly request_id: string
  readonly tokens: number
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly entropy: number
  readonly sink_mass: number
  readonly norms: readonly number[]
  readonly verdict: string
  readonly completeness: string
  readonly text: string
}

const root = join(import.meta.dirname, '../..')
const store = mkdtempSync(join(tmpdir(), 'ring2-demo-test-'))
const environment = {
  ...process.env,
  RING2_PYTHON: python,
  RING2_MODEL_DIR: modelFolder(),
  NO_COLOR: '1',
  OTEL_EXPORTER_OTLP_ENDPOINT: '',
}
let document: {
  readonly requests: readonly DemoRequest[]
  readonly store: string
  readonly verified: { hook: string; layer: number; bytes: number; equal: boolean }
  readonly losses: readonly unknown[]
  readonly seconds: number
  readonly links: { readonly api: string; readonly chat: string; readonly request: string }
}
const temporary = join(store, 'temporary')
const progress: string[] = []
let statuses: number[]
/** Exit code and signal. */
let ended: unknown[]

beforeAll(async () => {
  mkdirSync(temporary)
  const words = [join(root, 'bin/ring2-exporter.js'), 'demo', '--json', '--keep', '--store', store]
  const options = { env: { ...environment, TMPDIR: temporary }, detached: true } as const
  const demo = spawn(process.execPath, words, options)
  const exited = once(demo, 'exit')
  demo.stderr.on('data', (text: Buffer) => progress.push(text.toString()))
  let text = ''
  for await (const line of createInterface({ input: demo.stdout })) {
    text += line
    if (line === '}') break
  }
  document = JSON.parse(text)
  const { links } = document
  const answers = [await fetch(`${links.api}/readyz`), await fetch(links.request)]
  statuses = answers.map(({ status }) => status)
  // As a terminal does for Ctrl-C: to every process of the group.
  process.kill(-(demo.pid ?? 0), 'SIGINT')
  ended = await exited
}, 300_000)

afterAll(() => rmSync(store, { recursive: true }))

test('a demo that goes on says where, and Ctrl-C ends all of it in order', () => {
  expect(statuses).toEqual([200, 200])
  expect(document.links.chat).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/chat$/)
  expect(ended, progress.join('')).toEqual([0, null])
  expect(progress.join('')).toMatch(
    /stopping the chat-service …\nstopping the exporter …\nstopping the receiver …\n$/,
  )
  expect(processesOf(temporary)).toEqual([])
  // PyTorch leaves a folder of its own there.
  expect(readdirSync(temporary).filter((name) => name.startsWith('ring2'))).toEqual([])
})

test('the demo prints one document of six requests, each complete and with its own trace', () => {
  expect(document.requests).toHaveLength(6)
  expect(new Set(document.requests.map((request) => request.trace_id)).size).toBe(6)
  for (const request of document.requests) {
    expect(request.trace_id).toMatch(/^[0-9a-f]{32}$/)
    expect(request).toMatchObject({ verdict: 'ok', completeness: 'complete' })
    // The model never sees the last token it produced.
    expect(request.tokens).toBe(request.prompt_tokens + request.completion_tokens - 1)
    expect(request.norms).toHaveLength(30)
    expect(Math.min(...request.norms)).toBeGreaterThan(0)
    expect(request.entropy).toBeGreaterThan(0)
    expect(request.sink_mass).toBeGreaterThan(0)
    expect(request.sink_mass).toBeLessThan(1)
  }
  expect(document.requests[0]?.text).toContain('Paris')
})

test('the demo compares a fetched tensor with what the model process held', () => {
  const last = document.requests.at(-1)
  expect(document.verified).toMatchObject({ hook: 'resid_pre', equal: true })
  expect(document.verified.bytes).toBe((last?.tokens ?? 0) * 576 * 4)
  expect(document.losses).toEqual([])
})

test('the demo leaves its tensors where it says', () => {
  expect(document.store).toBe(store)
  const files = readdirSync(join(store, 'tensors'), { recursive: true, encoding: 'utf8' })
  expect(files.filter((file) => file.endsWith('.parquet')).length).toBeGreaterThan(0)
})

/** Processes that were started with a path below a folder. */
function processesOf(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8')]
      } catch {
        return [] // It ended meanwhile.
      }
    })
    .filter((words) => words.includes(folder))
}

test.each([
  ['interrupted', 'SIGTERM', [128 + 15, null]],
  ['killed', 'SIGKILL', [null, 'SIGKILL']],
] as const)('a demo that is %s leaves no process behind', async (how, signal, status) => {
  const folder = join(store, how)
  mkdirSync(folder)
  const words = [join(root, 'bin/ring2-exporter.js'), 'demo', '--store', join(folder, 'store')]
  const demo = spawn(process.execPath, words, { env: { ...environment, TMPDIR: folder } })
  const exited = once(demo, 'exit')
  for await (const line of createInterface({ input: demo.stderr })) {
    if (line.startsWith('starting the chat service')) break
  }
  await vi.waitFor(
    () => expect(processesOf(join(folder, 'ring2-demo')).join()).toContain('service.py'),
    10_000,
  )
  expect(processesOf(folder).length).toBeGreaterThan(2)
  demo.kill(signal)
  expect(await exited).toEqual(status)
  await vi.waitFor(() => expect(processesOf(folder)).toEqual([]), 60_000)
})
