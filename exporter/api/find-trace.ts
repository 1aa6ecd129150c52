/**
 * Before any answer about one trace: what other exporters stored of it in the same bucket is looked
 * for. An answer that may lack something, because the bucket could not be read, says so in a header.
 */

import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { TraceFinder } from '../catalog/trace-finder.ts'

/** Present on answers from the local catalogue alone; its value says why. */
export const LOCAL_ONLY_HEADER = 'x-ring2-local-only'

const HEADER_CHARACTERS_MAX = 300

export function findTraces(app: FastifyInstance, find: TraceFinder['find']): void {
  app.addHook('preHandler', async (request, reply) => {
    const traceId = traceIdOf(request)
    if (traceId === null) return
    const problems = await find(traceId)
    const [first] = problems
    if (first === undefined) return
    for (const problem of problems) {
      request.log.warn({ traceId, error: problem.toJSON() }, 'answered by the local catalogue')
    }
    // A header takes neither line breaks nor characters beyond ASCII.
    const reason = first.actual.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, HEADER_CHARACTERS_MAX)
    reply.header(LOCAL_ONLY_HEADER, reason)
  })
}

/** Null where the route has none, or none that can be one: its handler says so. */
function traceIdOf({ params }: FastifyRequest): string | null {
  if (typeof params !== 'object' || params === null || !('trace_id' in params)) return null
  const text = String(params.trace_id).toLowerCase()
  return /^[0-9a-f]{32}$/.test(text) ? text : null
}
