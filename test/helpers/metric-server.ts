/** Runs metric_server.py: a real gRPC server with scripted answers that decodes officially. */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type OtlpAttribute, type OtlpMetric, python } from './otlp-receiver.ts'

const script = join(import.meta.dirname, 'metric_server.py')

export interface ReceivedRequest {
  readonly unknown_bytes: number
  readonly resourceMetrics: readonly {
    readonly resource: { readonly attributes?: readonly OtlpAttribute[] }
    readonly scopeMetrics: readonly {
      readonly scope: { readonly name: string; readonly version: string }
      readonly metrics: readonly OtlpMetric[]
    }[]
  }[]
}

export interface Received {
  readonly answer: string
  readonly headers: Readonly<Record<string, string>>
  readonly request: ReceivedRequest
}

export interface MetricServer {
  readonly url: string
  /**
   * In the order of their arrival, those answered by an error included. A request may be here only
   * after its answer; `stop` waits for all.
   */
  readonly received: readonly Received[]
  stop(): Promise<readonly Received[]>
}

export async function startMetricServer(answers: readonly string[] = []): Promise<MetricServer> {
  const child = spawn(python, [script, ...answers], { stdio: ['pipe', 'pipe', 'inherit'] })
  const received: Received[] = []
  const lines = createInterface({ input: child.stdout })
  const read = once(lines, 'close')
  const port = await new Promise<number>((resolve, reject) => {
    lines.on('line', (line) => {
      const document = JSON.parse(line) as { readonly port?: number } & Received
      if (document.port === undefined) received.push(document)
      else resolve(document.port)
    })
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)))
  })
  return {
    url: `http://127.0.0.1:${port}`,
    received,
    stop: async () => {
      child.stdin.end()
      await read
      return received
    },
  }
}

/** What the official messages read of each serialized ExportMetricsServiceRequest. */
export function decodeOfficially(requests: readonly Buffer[]): ReceivedRequest[] {
  const input = requests.map((bytes) => `${bytes.toString('base64')}\n`).join('')
  const options = { input, encoding: 'utf8', maxBuffer: 1 << 28 } as const
  const result = spawnSync(python, [script, '--decode'], options)
  if (result.status !== 0) throw new Error(result.stderr)
  const lines = result.stdout.split('\n').filter((line) => line !== '')
  return lines.map((line) => (JSON.parse(line) as { request: ReceivedRequest }).request)
}

/** All metrics of a request. */
export function metricsOf(request: ReceivedRequest): OtlpMetric[] {
  return request.resourceMetrics.flatMap(({ scopeMetrics }) =>
    scopeMetrics.flatMap(({ metrics }) => metrics),
  )
}

/** Points of a request, of all kinds of metrics. */
export function pointsOf(request: ReceivedRequest) {
  return metricsOf(request).flatMap(
    ({ name, exponentialHistogram, sum, gauge }) =>
      (exponentialHistogram ?? sum ?? gauge)?.dataPoints.map((point) => ({ name, ...point })) ?? [],
  )
}
