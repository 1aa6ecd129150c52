/**
 * Who sends the telemetry: the attributes of the resource.
 *
 * The instance id is derived, not random: an exporter that comes back after a crash is the same
 * instance, so that spans it sends again are the same spans.
 */

import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import {
  ATTR_SERVICE_INSTANCE_ID,
  ATTR_SERVICE_NAME,
  ATTR_SERVICE_VERSION,
} from '@opentelemetry/semantic-conventions'
import type { Config, Environment } from '../config.ts'

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
