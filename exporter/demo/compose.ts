/**
 * The servers as containers of otel-config/compose.yaml, on their documented ports: for a machine with
 * a docker engine where they have not been built. A project of its own, so nothing of an earlier run is
 * seen, and what it made is removed at the end.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { errorText, Ring2Error } from '../errors.ts'
import { demoLimits } from './limits.ts'
import { otelConfig } from './stack/commands.ts'
import { documentedPorts } from './stack/ports.ts'
import { type StackUrls, stackUrls } from './stack/servers.ts'

/** Servers that watch: where they are, and how they end. */
export interface Servers {
  readonly urls: StackUrls
  stop(): Promise<void>
}

const file = join(otelConfig, 'compose.yaml')

/** Whether a docker engine answers, and has compose. */
export async function composeIsThere(): Promise<boolean> {
  try {
    await docker(['info'])
    await docker(['compose', 'version'])
    return true
  } catch {
    // No program, no engine, or no permission: all mean that it cannot be used.
    return false
  }
}

/**
 * @param project name of the compose project.
 * @throws Ring2Error when they do not start, such as for a port that is taken; none is left then.
 */
export async function startCompose(
  project: string,
  urls: StackUrls = stackUrls(documentedPorts),
): Promise<Servers> {
  const compose = ['compose', '--file', file, '--project-name', project]
  const stop = async (): Promise<void> => {
    await docker([...compose, 'down', '--volumes'])
  }
  try {
    await docker([...compose, 'up', '--detach', '--wait'])
    await untilReady(urls)
  } catch (error) {
    await stop()
    throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
      expected: `docker compose --file ${file} to start the servers`,
      actual: errorText(error),
      action: 'End what has their ports, or build the servers: `npm run stack -- build` needs Go.',
    })
  }
  return { urls, stop }
}

/** A container that runs does not answer yet. */
async function untilReady(urls: StackUrls): Promise<void> {
  const pages = [
    `${urls.prometheus}/-/ready`,
    `${urls.alertmanager}/-/ready`,
    `${urls.jaeger}/api/services`,
    // Any answer: the Collector's receiver has none for a GET.
    urls.otlpHttp,
  ]
  const until = performance.now() + demoLimits.startMillis
  for (const page of pages) {
    while (!(await answers(page, page === urls.otlpHttp))) {
      if (performance.now() > until) throw new Error(`${page} does not answer`)
      await sleep(demoLimits.pollMillis)
    }
  }
}

async function answers(page: string, anyStatus: boolean): Promise<boolean> {
  try {
    const response = await fetch(page, { signal: AbortSignal.timeout(demoLimits.probeMillis) })
    await response.arrayBuffer()
    return anyStatus || response.ok
  } catch {
    return false
  }
}

async function docker(words: readonly string[]): Promise<void> {
  await promisify(execFile)('docker', [...words], { maxBuffer: demoLimits.dockerOutputBytesMax })
}
