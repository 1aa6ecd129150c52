/**
 * Which names the API may be reached by when it has no token: those of this machine, and that of the
 * public URL. A page of another site whose name is made to lead here (DNS rebinding) is refused.
 */

import type { FastifyInstance, FastifyRequest } from 'fastify'
import { isLoopback } from '../config.ts'
import { Ring2Error } from '../errors.ts'

/** For the routes that answer with data. Browsers always tell the name. */
export function guardHost(app: FastifyInstance, baseUrl: () => string): void {
  app.addHook('onRequest', async (request) => {
    if (request.headers.host === undefined || isLoopback(request.hostname)) return
    const url = baseUrl()
    if (URL.canParse(url) && new URL(url).hostname === request.hostname) return
    throw foreignName(request)
  })
}

export function foreignName({ hostname }: FastifyRequest): Ring2Error {
  return new Ring2Error('RING2_E_UNAUTHORIZED', {
    expected: 'api.token to be set, or localhost as the name that the API is reached by',
    actual: JSON.stringify(hostname.slice(0, 80)),
  })
}
