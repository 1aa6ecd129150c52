/** HTTP as the demo speaks it: every answer in bounded time, and an unexpected one is an error. */
import { createServer } from 'node:net'
import { Ring2Error } from '../errors.ts'
import { demoLimits } from './limits.ts'

/** @throws Ring2Error unless the answer's status is 2xx. */
export async function fetchChecked(url: string, init?: RequestInit): Promise<Response> {
  const response = await fetch(url, {
    ...init,
    signal: AbortSignal.timeout(demoLimits.requestMillis),
  })
  if (response.ok) return response
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `${url} to answer`,
    actual: `${response.status} ${await response.text()}`,
  })
}

export async function getJson<T>(url: string): Promise<T>
/** Undefined when the answer has the status that means: there is none. */
export async function getJson<T>(url: string, none: number): Promise<T | undefined>
export async function getJson<T>(url: string, none?: number): Promise<T | undefined> {
  if (none === undefined) return (await (await fetchChecked(url)).json()) as T
  const response = await fetch(url, { signal: AbortSignal.timeout(demoLimits.requestMillis) })
  if (response.status === none) {
    await response.arrayBuffer()
    return undefined
  }
  if (response.ok) return (await response.json()) as T
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `${url} to answer`,
    actual: `${response.status} ${await response.text()}`,
  })
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      server.close(() => resolve(port))
    })
  })
}
