/**
 * Who sends the telemetry: the attributes of the resource.
 *
 * The instance id is derived, not random: an exporter that comes back after a crash is the same
 * instance, so that spans it sends again are the same spans.
 */

import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import {
  defaultResource,
  detectResources,
  envDetector,
  hostDetector,
  osDetector,
  processDetector,
  type Resource,
  type ResourceDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector,
} from '@opentelemetry/resources'
import {
  ATTR_SERVICE_INSTANCE_ID,
  ATTR_SERVICE_NAME,
  ATTR_SERVICE_VERSION,
} from '@opentelemetry/semantic-conventions'
import type { Config, Environment } from '../config.ts'
import type { OtlpValue } from './otlp-attributes.ts'

export const SERVICE_NAME = 'ring2-exporter'

/** Attributes before those of the environment (OTEL_RESOURCE_ATTRIBUTES), which win over them. */
export function resourceAttributes(config: Config, version: string): Record<string, string> {
  return {
    [ATTR_SERVICE_NAME]: SERVICE_NAME,
    [ATTR_SERVICE_VERSION]: version,
    [ATTR_SERVICE_INSTANCE_ID]: instanceId(config),
    'host.name': hostname(),
  }
}

/** Names that OTEL_NODE_RESOURCE_DETECTORS may list. */
const detectors: Readonly<Record<string, ResourceDetector>> = {
  env: envDetector,
  host: hostDetector,
  os: osDetector,
  process: processDetector,
  serviceinstance: serviceInstanceIdDetector,
}

/** The resource of spans and metrics: our attributes, then what is detected, the environment last. */
export function detectedResource(
  config: Config,
  version: string,
  environment: Environment,
): Resource {
  const own = resourceFromAttributes(resourceAttributes(config, version))
  const listed = environment.OTEL_NODE_RESOURCE_DETECTORS?.split(',') ?? ['host', 'env']
  const names = listed.map((name) => name.trim())
  const chosen = Object.entries(detectors)
    .filter(([name]) => names.includes(name) || names.includes('all'))
    // What a user sets wins over what is found.
    .sort(([one], [other]) => Number(one === 'env') - Number(other === 'env'))
    .map(([, detector]) => detector)
  return defaultResource()
    .merge(own)
    .merge(detectResources({ detectors: chosen }))
}

/** The attributes, once those that are found asynchronously are there. */
export async function settledAttributes(
  resource: Resource,
): Promise<Readonly<Record<string, OtlpValue>>> {
  await resource.waitForAsyncAttributes?.()
  const attributes: Record<string, OtlpValue> = {}
  for (const [name, value] of Object.entries(resource.attributes)) {
    if (Array.isArray(value)) attributes[name] = value.filter((one) => one != null)
    else if (value !== undefined) attributes[name] = value as OtlpValue
  }
  return attributes
}

/** The same for the /metrics page, with the service name that the environment gives. */
export function targetAttributes(
  config: Config,
  version: string,
  environment: Environment,
): Record<string, string> {
  const attributes = resourceAttributes(config, version)
  const named = environment.OTEL_SERVICE_NAME?.trim() ?? ''
  return named === '' ? attributes : { ...attributes, [ATTR_SERVICE_NAME]: named }
}

/** A UUID (version 8, RFC 9562) of host, address and store: two exporters never share all three. */
function instanceId(config: Config): string {
  const identity = [hostname(), config.api.host, config.api.port, config.store.url].join('|')
  const bytes = createHash('sha256').update(identity).digest().subarray(0, 16)
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)]
  return [...parts, hex.slice(20)].join('-')
}
