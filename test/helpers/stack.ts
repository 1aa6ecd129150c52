/**
 * The real servers for a test: started with the shipped configurations on free ports, ended when the
 * test or its file has finished, and small readers of their APIs.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { requireStackBinaries, stackBinaries } from '../../exporter/demo/stack/binaries.ts'
import { type Stack, type StackOptions, startStack } from '../../exporter/demo/stack/servers.ts'

const required = process.env.CI === 'true' || Boolean(process.env.RING2_REQUIRE_STACK)

/** Whether the servers can run. Where they must, a missing one is an error; else it is said aloud. */
export function stackIsThere(): boolean {
  if (required) return requireStackBinaries() !== ''
  if (stackBinaries() !== null) return true
  process.stderr.write(
    'ring2: NOT RUN: tests against the real Collector, Jaeger, Prometheus and Alertmanager; they are not built. `npm run stack -- build` builds them (needs Go 1.26 or newer).\n',
  )
  return false
}

export interface TestStack extends Stack {
  /** Ends the servers and removes their folder. */
  [Symbol.asyncDispose](): Promise<void>
}

/** `await using stack = await startTestStack({…})` ends it with its block. */
export async function startTestStack(
  options: Omit<StackOptions, 'binaries' | 'folder'> = {},
): Promise<TestStack> {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-stack-'))
  const stack = await startStack({ ...options, binaries: requireStackBinaries(), folder })
  return {
    ...stack,
    async [Symbol.asyncDispose]() {
      await stack.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Tries until `probe` gives something; the last failure when it never does. */
export async function eventually<T>(
  probe: () => Promise<T | undefined> | T | undefined,
  what: string,
  millis = 30_000,
): Promise<T> {
  const until = performance.now() + millis
  let last: unknown
  while (performance.now() < until) {
    try {
      const found = await probe()
      if (found !== undefined) return found
    } catch (error) {
      last = error
    }
    await sleep(100)
  }
  expect.fail(`${what}: not within ${millis / 1000} s${last === undefined ? '' : `; ${last}`}`)
}

async function json(url: string): Promise<unknown> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) })
  const text = await response.text()
  if (!response.ok) throw new Error(`${url}: ${response.status} ${text.slice(0, 500)}`)
  return JSON.parse(text)
}

export interface JaegerSpan {
  readonly traceID: string
  readonly spanID: string
  readonly operationName: string
  readonly processID: string
  readonly startTime: number
  readonly duration: number
  readonly references: readonly { readonly refType: string; readonly spanID: string }[]
  readonly tags: readonly { readonly key: string; readonly type: string; readonly value: unknown }[]
  readonly logs: readonly {
    readonly timestamp: number
    readonly fields: readonly { readonly key: string; readonly value: unknown }[]
  }[]
  readonly warnings: readonly string[] | null
}

export interface JaegerTrace {
  readonly traceID: string
  readonly spans: readonly JaegerSpan[]
  readonly processes: Readonly<Record<string, { readonly serviceName: string }>>
}

/** The trace as Jaeger has it, or undefined when it has none of it. */
export async function jaegerTrace(stack: Stack, traceId: string): Promise<JaegerTrace | undefined> {
  const response = await fetch(`${stack.urls.jaeger}/api/traces/${traceId}`)
  if (response.status === 404) return undefined
  const { data } = (await response.json()) as { data: JaegerTrace[] | null }
  return data?.[0]
}

export interface PrometheusSeries {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly [number, string]
  /** A native histogram. */
  readonly histogram?: readonly [
    number,
    {
      readonly count: string
      readonly sum: string
      readonly buckets?: readonly (readonly [number, string, string, string])[]
    },
  ]
}

/** An instant query; every series that it gives. */
export async function promQuery(stack: Stack, query: string): Promise<PrometheusSeries[]> {
  const url = `${stack.urls.prometheus}/api/v1/query?query=${encodeURIComponent(query)}`
  return ((await json(url)) as { data: { result: PrometheusSeries[] } }).data.result
}

export interface PrometheusExemplar {
  readonly labels: Readonly<Record<string, string>>
  readonly value: string
  readonly timestamp: number
}

/** Exemplars of the series that a query names, of the last hour. */
export async function promExemplars(stack: Stack, query: string): Promise<PrometheusExemplar[]> {
  const now = Date.now() / 1000
  const range = `start=${now - 3600}&end=${now + 60}`
  const url = `${stack.urls.prometheus}/api/v1/query_exemplars?query=${encodeURIComponent(query)}&${range}`
  const { data } = (await json(url)) as { data: { exemplars: PrometheusExemplar[] }[] }
  return data.flatMap(({ exemplars }) => exemplars)
}

/** Sends OTLP as JSON over HTTP; the answer's status. */
export async function sendOtlp(
  url: string,
  signal: 'traces' | 'metrics',
  body: unknown,
): Promise<number> {
  const response = await fetch(`${url}/v1/${signal}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(15_000),
  })
  await response.arrayBuffer()
  return response.status
}
