/**
 * How each real server is started with the configuration of otel-config/: program, arguments, environment,
 * folder. It starts nothing.
 *
 * The Collector and Jaeger read their addresses from the environment, so their files are used as they
 * are. Prometheus and Alertmanager cannot: their files are copied with other addresses, paths and,
 * where asked for, shorter waits; everything else in them stays.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parse, stringify } from 'yaml'
import type { StackPorts } from './ports.ts'

export const serverNames = ['jaeger', 'alertmanager', 'prometheus', 'collector'] as const
export type ServerName = (typeof serverNames)[number]

export interface CommandOptions {
  /** Folder that holds otelcol, jaeger, prometheus and alertmanager. */
  readonly binaries: string
  /** Folder for data, logs and rewritten configurations; it must exist. */
  readonly folder: string
  readonly ports: StackPorts
  /** A Collector configuration; otel-config/collector/jaeger-prometheus.yaml when left out. */
  readonly collectorConfig?: string
  /** A file, or a pattern with `*`, of alert rules; the shipped ones when left out. */
  readonly rules?: string
  /** Where Alertmanager posts; the shipped placeholder when left out. */
  readonly webhookUrl?: string
  /** `/metrics` of an exporter that Prometheus scrapes, as host:port; none when left out. */
  readonly scrapeTarget?: string
  /** How often rules are evaluated, as `1s`; the shipped interval when left out. */
  readonly evaluationInterval?: string
  /** How long Alertmanager gathers alerts before it posts, as `1s`; the shipped waits when left out. */
  readonly groupWait?: string
  /** More variables for the Collector and Jaeger, such as RING2_TAP_ENDPOINT. */
  readonly environment?: Readonly<Record<string, string>>
}

export interface ServerCommand {
  readonly name: ServerName
  readonly program: string
  readonly arguments: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  /** Answers 200 when the server is ready. */
  readonly healthUrl: string
}

export const otelConfig = resolve(import.meta.dirname, '../../../otel-config')

const loopback = (port: number): string => `127.0.0.1:${port}`
const http = (port: number): string => `http://${loopback(port)}`

/** Writes what a server reads into its folder, and says how to start it. */
export function serverCommand(name: ServerName, options: CommandOptions): ServerCommand {
  return commands[name](options)
}

const commands: Readonly<Record<ServerName, (options: CommandOptions) => ServerCommand>> = {
  collector: (options) => ({
    name: 'collector',
    program: join(options.binaries, 'otelcol'),
    arguments: [
      '--config',
      resolve(options.collectorConfig ?? join(otelConfig, 'collector/jaeger-prometheus.yaml')),
    ],
    environment: collectorEnvironment(options),
    workingDirectory: dataFolder(options, 'collector'),
    healthUrl: http(options.ports.collectorHealth),
  }),
  jaeger: (options) => ({
    name: 'jaeger',
    program: join(options.binaries, 'jaeger'),
    arguments: ['--config', join(otelConfig, 'jaeger/jaeger.yaml')],
    environment: jaegerEnvironment(options),
    workingDirectory: dataFolder(options, 'jaeger'),
    healthUrl: `${http(options.ports.jaegerHealth)}/status`,
  }),
  prometheus: (options) => ({
    name: 'prometheus',
    program: join(options.binaries, 'prometheus'),
    arguments: [
      `--config.file=${prometheusConfig(options)}`,
      `--storage.tsdb.path=${join(dataFolder(options, 'prometheus'), 'data')}`,
      `--web.listen-address=${loopback(options.ports.prometheus)}`,
      // What links in alerts begin with; else the machine's name, which nobody can open here.
      `--web.external-url=${http(options.ports.prometheus)}`,
      '--web.enable-otlp-receiver',
      '--enable-feature=exemplar-storage,otlp-deltatocumulative,created-timestamp-zero-ingestion',
    ],
    environment: {},
    workingDirectory: dataFolder(options, 'prometheus'),
    healthUrl: `${http(options.ports.prometheus)}/-/ready`,
  }),
  alertmanager: (options) => ({
    name: 'alertmanager',
    program: join(options.binaries, 'alertmanager'),
    arguments: [
      `--config.file=${alertmanagerConfig(options)}`,
      `--storage.path=${join(dataFolder(options, 'alertmanager'), 'data')}`,
      `--web.listen-address=${loopback(options.ports.alertmanager)}`,
      `--web.external-url=${http(options.ports.alertmanager)}`,
      '--cluster.listen-address=',
    ],
    environment: {},
    workingDirectory: dataFolder(options, 'alertmanager'),
    healthUrl: `${http(options.ports.alertmanager)}/-/ready`,
  }),
}

function dataFolder(options: CommandOptions, name: ServerName): string {
  const folder = join(options.folder, name)
  mkdirSync(folder, { recursive: true })
  return folder
}

/** What any shipped Collector configuration reads; also good for `otelcol validate`. */
export function collectorEnvironment(options: CommandOptions): Record<string, string> {
  const { ports } = options
  return {
    OTELCOL_GRPC_ENDPOINT: loopback(ports.otlpGrpc),
    OTELCOL_HTTP_ENDPOINT: loopback(ports.otlpHttp),
    OTELCOL_HEALTH_ENDPOINT: loopback(ports.collectorHealth),
    OTELCOL_METRICS_PORT: String(ports.collectorMetrics),
    OTELCOL_QUEUE_DIRECTORY: join(dataFolder(options, 'collector'), 'queue'),
    JAEGER_OTLP_GRPC_ENDPOINT: loopback(ports.jaegerOtlpGrpc),
    PROMETHEUS_URL: http(ports.prometheus),
    ...options.environment,
  }
}

function jaegerEnvironment({ ports, environment }: CommandOptions): Record<string, string> {
  return {
    ...environment,
    JAEGER_OTLP_GRPC_ENDPOINT: loopback(ports.jaegerOtlpGrpc),
    JAEGER_OTLP_HTTP_ENDPOINT: loopback(ports.jaegerOtlpHttp),
    JAEGER_QUERY_HTTP_ENDPOINT: loopback(ports.jaegerQuery),
    JAEGER_QUERY_GRPC_ENDPOINT: loopback(ports.jaegerQueryGrpc),
    JAEGER_HEALTH_ENDPOINT: loopback(ports.jaegerHealth),
  }
}

interface PrometheusConfig {
  global: { evaluation_interval: string }
  rule_files: string[]
}

function prometheusConfig(options: CommandOptions): string {
  const { ports } = options
  const shipped = join(otelConfig, 'prometheus')
  const config = parse(readFileSync(join(shipped, 'prometheus.yml'), 'utf8')) as PrometheusConfig
  config.rule_files =
    options.rules === undefined
      ? config.rule_files.map((path) => join(shipped, path))
      : [resolve(options.rules)]
  if (options.evaluationInterval !== undefined) {
    config.global.evaluation_interval = options.evaluationInterval
  }
  const folder = dataFolder(options, 'prometheus')
  const targets = join(folder, 'targets')
  mkdirSync(targets, { recursive: true })
  written(join(targets, 'alertmanager.yaml'), [{ targets: [loopback(ports.alertmanager)] }])
  written(join(targets, 'otelcol.yaml'), [{ targets: [loopback(ports.collectorMetrics)] }])
  const exporters =
    options.scrapeTarget === undefined
      ? []
      : [{ targets: [options.scrapeTarget], labels: { service_name: 'ring2-exporter' } }]
  written(join(targets, 'ring2-exporter.yaml'), exporters)
  return written(join(folder, 'prometheus.yml'), config)
}

interface Route {
  group_wait?: string
  group_interval?: string
  routes?: Route[]
}

interface AlertmanagerConfig {
  route: Route
  receivers: { webhook_configs: { url_file: string }[] }[]
}

function alertmanagerConfig(options: CommandOptions): string {
  const shipped = join(otelConfig, 'alertmanager')
  const folder = dataFolder(options, 'alertmanager')
  const config = parse(
    readFileSync(join(shipped, 'alertmanager.yml'), 'utf8'),
  ) as AlertmanagerConfig
  const urlFile = join(folder, 'webhook-url')
  if (options.webhookUrl === undefined) cpSync(join(shipped, 'webhook-url'), urlFile)
  else writeFileSync(urlFile, options.webhookUrl)
  for (const receiver of config.receivers) {
    for (const webhook of receiver.webhook_configs) webhook.url_file = urlFile
  }
  const wait = options.groupWait
  if (wait !== undefined) {
    for (const route of [config.route, ...(config.route.routes ?? [])]) {
      route.group_wait = wait
      route.group_interval = wait
    }
  }
  return written(join(folder, 'alertmanager.yml'), config)
}

function written(path: string, config: unknown): string {
  writeFileSync(path, stringify(config))
  return path
}
