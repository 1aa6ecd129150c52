/**
 * The ports of the four servers: those that otel-config/ documents, or free ones on loopback.
 *
 * A free port is not held: between the choice and the server's start another process could take it,
 * and then the server says so and does not get healthy.
 */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { Ring2Error } from '../../errors.ts'
import { stackLimits } from './limits.ts'

export interface StackPorts {
  readonly otlpGrpc: number
  readonly otlpHttp: number
  readonly collectorHealth: number
  readonly collectorMetrics: number
  readonly jaegerQuery: number
  readonly jaegerQueryGrpc: number
  readonly jaegerOtlpGrpc: number
  readonly jaegerOtlpHttp: number
  readonly jaegerHealth: number
  readonly prometheus: number
  readonly alertmanager: number
}

/** The defaults of the configurations in otel-config/. */
export const documentedPorts: StackPorts = {
  otlpGrpc: 4317,
  otlpHttp: 4318,
  collectorHealth: 13_133,
  collectorMetrics: 8888,
  jaegerQuery: 16_686,
  jaegerQueryGrpc: 16_685,
  jaegerOtlpGrpc: 14_317,
  jaegerOtlpHttp: 14_318,
  jaegerHealth: 14_133,
  prometheus: 9090,
  alertmanager: 9093,
}

/** @throws Ring2Error RING2_E_INTERNAL_EXPORTER when none is found. */
export async function freePorts(): Promise<StackPorts> {
  const taken = new Set<number>()
  const entries: [string, number][] = []
  for (const name of Object.keys(documentedPorts)) entries.push([name, await freePort(taken)])
  return Object.fromEntries(entries) as unknown as StackPorts
}

async function freePort(taken: Set<number>): Promise<number> {
  for (let tries = 0; tries < stackLimits.portTries; tries++) {
    const port = randomInt(stackLimits.portFrom, stackLimits.portTo)
    if (taken.has(port) || !(await isFree(port))) continue
    taken.add(port)
    return port
  }
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `a free port between ${stackLimits.portFrom} and ${stackLimits.portTo}`,
    actual: `none in ${stackLimits.portTries} tries`,
  })
}

/** Whether a server on loopback could listen there now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
