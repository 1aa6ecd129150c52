/**
 * Whether spans and metrics are sent by OTLP: from the configuration and the `OTEL_…` variables.
 *
 * Pure. What the variables mean is the specification's matter; only gRPC is spoken, so that another
 * protocol is an error and not a silent failure at some port.
 */

import { Ring2Error } from '../../collector/errors.ts'
import type { Config, Environment } from '../config.ts'

export interface OtlpDecision {
  readonly spans: boolean
  readonly metrics: boolean
  /** Why, in words. */
  readonly reason: string
}

const signalNames = ['TRACES', 'METRICS'] as const
type SignalName = (typeof signalNames)[number]

interface Endpoint {
  /** The key or variable that names it. */
  readonly source: string
  readonly url: string
}

type OtlpKeys = Pick<Config['telemetry'], 'otlp' | 'endpoint'>

/** @throws Ring2Error RING2_E_CONFIG for another protocol than gRPC, or an endpoint that is no URL. */
export function decideOtlp(telemetry: OtlpKeys, environment: Environment): OtlpDecision {
  const off = (reason: string): OtlpDecision => ({ spans: false, metrics: false, reason })
  if (telemetry.otlp === 'off') return off('OTLP is off: telemetry.otlp is off')
  if (environment.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') {
    return off('OTLP is off: OTEL_SDK_DISABLED is true')
  }
  const wanted = (signal: SignalName): boolean =>
    (telemetry.otlp === 'on' || endpointOf(telemetry, environment, signal) !== null) &&
    isExported(environment, signal)
  const spans = wanted('TRACES')
  const metrics = wanted('METRICS')
  if (!spans && !metrics) {
    return off('OTLP is off: neither telemetry.endpoint nor OTEL_EXPORTER_OTLP_ENDPOINT is set')
  }
  for (const signal of signalNames) {
    if (signal === 'TRACES' ? !spans : !metrics) continue
    checkProtocol(environment, signal)
    checkEndpoint(endpointOf(telemetry, environment, signal))
  }
  const found = endpointOf(telemetry, environment, spans ? 'TRACES' : 'METRICS')
  const endpoint = found?.url ?? 'http://localhost:4317'
  const what = spans && metrics ? 'spans and metrics' : spans ? 'spans' : 'metrics'
  return { spans, metrics, reason: `OTLP is on: ${what} go to ${withoutCredentials(endpoint)}` }
}

function endpointOf(
  telemetry: OtlpKeys,
  environment: Environment,
  signal: SignalName,
): Endpoint | null {
  const variables = [`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`, 'OTEL_EXPORTER_OTLP_ENDPOINT']
  const places: [string, string | undefined][] = [
    ['telemetry.endpoint', telemetry.endpoint],
    ...variables.map((name): [string, string | undefined] => [name, environment[name]]),
  ]
  for (const [source, text] of places) {
    const url = text?.trim() ?? ''
    if (url !== '') return { source, url }
  }
  return null
}

/** Without a scheme it is not said whether the connection is encrypted, and a guess fails later. */
function checkEndpoint(endpoint: Endpoint | null): void {
  if (endpoint === null) return
  const { source, url } = endpoint
  if (/^https?:\/\//i.test(url) && URL.canParse(url)) return
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `a URL that starts with http:// or https:// as ${source}`,
    actual: withoutCredentials(url),
    action: `Set ${source} to a URL such as http://localhost:4317.`,
  })
}

/** `OTEL_TRACES_EXPORTER` and the like name the exporters; unset means `otlp`. */
function isExported(environment: Environment, signal: SignalName): boolean {
  const names = environment[`OTEL_${signal}_EXPORTER`]?.trim() ?? ''
  if (names === '') return true
  return names.split(',').some((name) => name.trim().toLowerCase() === 'otlp')
}

function checkProtocol(environment: Environment, signal: SignalName): void {
  const candidates = [`OTEL_EXPORTER_OTLP_${signal}_PROTOCOL`, 'OTEL_EXPORTER_OTLP_PROTOCOL']
  const variable = candidates.find((name) => (environment[name]?.trim() ?? '') !== '')
  if (variable === undefined) return
  const protocol = environment[variable]?.trim()
  if (protocol === 'grpc') return
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `grpc as ${variable}`,
    actual: String(protocol),
    action:
      `Set ${variable}=grpc and an endpoint that speaks gRPC (usually port 4317), ` +
      'or switch OTLP off with telemetry.otlp: off.',
  })
}

function withoutCredentials(endpoint: string): string {
  return endpoint.replace(/\/\/[^/@]*@/, '//')
}
