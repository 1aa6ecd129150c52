/**
 * Runs examples/otlp-receiver/otlp_receiver.py, a real OTLP/gRPC receiver, and reads what it received.
 *
 * Python is the one of RING2_PYTHON, or that of the repository's environment.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const repository = join(import.meta.dirname, '../..')
export const python = process.env.RING2_PYTHON || join(repository, '.venv/bin/python')

export interface OtlpValue {
  readonly stringValue?: string
  readonly intValue?: string
  readonly doubleValue?: number | string
  readonly boolValue?: boolean
  readonly arrayValue?: { readonly values?: readonly OtlpValue[] }
}

export interface OtlpAttribute {
  readonly key: string
  readonly value: OtlpValue
}

export interface OtlpSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly traceState?: string
  readonly name: string
  readonly kind: string
  readonly flags?: number
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes?: readonly OtlpAttribute[]
  readonly droppedAttributesCount?: number
  readonly links?: readonly { readonly traceId: string; readonly spanId: string }[]
  readonly status?: { readonly code?: string }
  readonly events?: readonly {
    readonly name: string
    readonly timeUnixNano: string
    readonly attributes?: readonly OtlpAttribute[]
  }[]
}

export interface OtlpPoint {
  readonly attributes?: readonly OtlpAttribute[]
  readonly startTimeUnixNano: string
  readonly timeUnixNano: string
  readonly asInt?: string
  readonly asDouble?: number
  readonly count?: string
  readonly sum?: number
  readonly min?: number
  readonly max?: number
  readonly scale?: number
  readonly zeroCount?: string
  readonly positive?: { readonly offset?: number; readonly bucketCounts?: readonly string[] }
}

interface OtlpPoints {
  readonly dataPoints: readonly OtlpPoint[]
  readonly aggregationTemporality?: string
  readonly isMonotonic?: boolean
}

export interface OtlpMetric {
  readonly name: string
  readonly unit?: string
  readonly description: string
  readonly exponentialHistogram?: OtlpPoints
  readonly sum?: OtlpPoints
  readonly gauge?: OtlpPoints
}

interface OtlpResource {
  readonly attributes?: readonly OtlpAttribute[]
}

interface Line {
  readonly traces?: {
    readonly resource: OtlpResource
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[]
  }
  readonly metrics?: {
    readonly resource: OtlpResource
    readonly scopeMetrics: readonly { readonly metrics: readonly OtlpMetric[] }[]
  }
}

export interface Receiver {
  readonly port: number
  readonly url: string
  spans(): OtlpSpan[]
  /** One list per export. */
  metrics(): OtlpMetric[][]
  resources(): OtlpResource[]
  stop(): Promise<void>
}

/** @param flags further arguments of the receiver, such as `--reject`. */
export async function startReceiver(flags: readonly string[] = []): Promise<Receiver> {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-otlp-'))
  const file = join(folder, 'received.jsonl')
  const script = join(repository, 'examples/otlp-receiver/otlp_receiver.py')
  const child = spawn(python, [script, file, ...flags], { stdio: ['pipe', 'pipe', 'inherit'] })
  const port = await readPort(child)
  const lines = (): Line[] => {
    if (!existsSync(file)) return []
    const complete = readFileSync(file, 'utf8').split('\n').slice(0, -1)
    return complete.map((line) => JSON.parse(line) as Line)
  }
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    spans: () =>
      lines().flatMap(({ traces }) => traces?.scopeSpans.flatMap(({ spans }) => spans) ?? []),
    metrics: () =>
      lines().flatMap(({ metrics }) =>
        metrics === undefined ? [] : [metrics.scopeMetrics.flatMap((scope) => scope.metrics)],
      ),
    resources: () =>
      lines().flatMap(({ traces, metrics }) => {
        const resource = traces?.resource ?? metrics?.resource
        return resource === undefined ? [] : [resource]
      }),
    stop: async () => {
      const ended = child.exitCode === null ? once(child, 'exit') : undefined
      child.stdin?.end()
      await ended
      rmSync(folder, { recursive: true })
    },
  }
}

async function readPort(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error('the receiver has no standard output')
  const lines = createInterface({ input: child.stdout })
  const first = new Promise<string>((resolve, reject) => {
    lines.once('line', resolve)
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`the receiver ended with ${code}`)))
  })
  return (JSON.parse(await first) as { port: number }).port
}

/** Attributes as a plain object: whole numbers become numbers, arrays arrays. */
export function plainAttributes(
  attributes: readonly OtlpAttribute[] | undefined,
): Record<string, unknown> {
  return Object.fromEntries((attributes ?? []).map(({ key, value }) => [key, plainValue(value)]))
}

function plainValue(value: OtlpValue): unknown {
  if (value.arrayValue !== undefined) return (value.arrayValue.values ?? []).map(plainValue)
  if (value.intValue !== undefined) return Number(value.intValue)
  return value.stringValue ?? value.doubleValue ?? value.boolValue
}
