/**
 * The real Collector, Jaeger, Prometheus and Alertmanager on free loopback ports, with the shipped
 * configurations, as children of this process. For the demo and the tests; `npm run stack` runs them on
 * their documented ports.
 *
 * Every address is fixed for the life of the stack, so a server may be started late, stopped, killed and
 * started again without telling the others.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type CommandOptions, type ServerName, serverCommand, serverNames } from './commands.ts'
import { freePorts, type StackPorts } from './ports.ts'
import { createServerProcess, type StackServer } from './process.ts'

export interface StackOptions extends Omit<CommandOptions, 'ports'> {
  /** Those to start at once; all when left out. The others can be started later. */
  readonly servers?: readonly ServerName[]
}

export interface StackUrls {
  /** OTLP/gRPC of the Collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` takes it. */
  readonly otlpGrpc: string
  /** OTLP/HTTP of the Collector; `/v1/traces` and `/v1/metrics` are below it. */
  readonly otlpHttp: string
  /** `/metrics` of the Collector itself. */
  readonly collectorMetrics: string
  readonly jaeger: string
  readonly prometheus: string
  readonly alertmanager: string
}

export interface Stack {
  readonly urls: StackUrls
  readonly ports: StackPorts
  readonly folder: string
  /** All four, also those that were not started. */
  readonly servers: Readonly<Record<ServerName, StackServer>>
  /** Ends what runs: the Collector first, so that it can still deliver. */
  stop(): Promise<void>
}

/** @throws Ring2Error when a server does not start; none is left running then. */
export async function startStack(options: StackOptions): Promise<Stack> {
  const ports = await freePorts()
  mkdirSync(options.folder, { recursive: true })
  const server = (name: ServerName): StackServer =>
    createServerProcess(
      serverCommand(name, { ...options, ports }),
      join(options.folder, `${name}.log`),
    )
  const servers: Record<ServerName, StackServer> = {
    jaeger: server('jaeger'),
    alertmanager: server('alertmanager'),
    prometheus: server('prometheus'),
    collector: server('collector'),
  }
  const stop = async (): Promise<void> => {
    await servers.collector.stop()
    // Jaeger waits ten seconds for idle connections, and has nothing to save: its traces are in memory.
    await Promise.all([
      servers.prometheus.stop(),
      servers.alertmanager.stop(),
      servers.jaeger.kill(),
    ])
  }
  try {
    const wanted = serverNames.filter((name) => options.servers?.includes(name) ?? true)
    // The Collector last: a connection that is refused at first waits a second before the next try.
    const backends = wanted.filter((name) => name !== 'collector')
    await Promise.all(backends.map((name) => servers[name].start()))
    if (wanted.includes('collector')) await servers.collector.start()
  } catch (error) {
    await stop()
    throw error
  }
  return { urls: stackUrls(ports), ports, folder: options.folder, servers, stop }
}

export function stackUrls(ports: StackPorts): StackUrls {
  const http = (port: number): string => `http://127.0.0.1:${port}`
  return {
    otlpGrpc: http(ports.otlpGrpc),
    otlpHttp: http(ports.otlpHttp),
    collectorMetrics: `${http(ports.collectorMetrics)}/metrics`,
    jaeger: http(ports.jaegerQuery),
    prometheus: http(ports.prometheus),
    alertmanager: http(ports.alertmanager),
  }
}
