/**
 * Routes about the exporter itself: rings, metrics, where the store is; and its health, which asks for
 * no token so that a supervisor needs none.
 */

import type { FastifyPluginAsync } from 'fastify'
import { Type } from 'typebox'
import type { Health, ServerDependencies } from './dependencies.ts'
import { answers } from './schemas.ts'

export function systemRoutes(dependencies: ServerDependencies): FastifyPluginAsync {
  return async (app) => {
    const ringsSchema = {
      summary: 'Live segments: producer, occupancy, rates, losses, lag',
      tags: ['exporter'],
      response: { 200: Type.Unknown({ description: 'as `ring2-exporter rings --json`' }) },
    }
    app.get('/v1/rings', { schema: ringsSchema }, async () => dependencies.rings())

    const { storeUrl } = dependencies
    if (storeUrl !== undefined) {
      const storeSchema = {
        summary: 'Where the tensors are kept',
        tags: ['exporter'],
        response: answers(Type.Object({ url: Type.String() }, { additionalProperties: false })),
      }
      app.get('/v1/store', { schema: storeSchema }, async () => ({ url: storeUrl }))
    }

    const metricsSchema = { summary: 'OpenMetrics, with exemplars', tags: ['exporter'] }
    app.get('/metrics', { schema: metricsSchema }, async (request, reply) => {
      const page = await dependencies.metrics(request.headers.accept)
      reply.header('vary', 'accept')
      return reply.type(page.contentType).send(page.body)
    })
  }
}

const healthSchema = Type.Object({
  status: Type.Union([Type.Literal('ok'), Type.Literal('failing')]),
  checks: Type.Array(
    Type.Object({ name: Type.String(), ok: Type.Boolean(), detail: Type.String() }),
  ),
})

export function healthRoutes(dependencies: ServerDependencies): FastifyPluginAsync {
  return async (app) => {
    const answer = (ok: boolean, health: Health) => ({
      status: ok ? 'ok' : 'failing',
      checks: health.checks,
    })
    const response = { 200: healthSchema, 503: healthSchema }
    const liveSchema = { summary: 'Whether the process works', tags: ['health'], response }
    app.get('/healthz', { schema: liveSchema }, async (_request, reply) => {
      const health = dependencies.health()
      return reply.code(health.alive ? 200 : 503).send(answer(health.alive, health))
    })
    const readySchema = { summary: 'Whether it takes data', tags: ['health'], response }
    app.get('/readyz', { schema: readySchema }, async (_request, reply) => {
      const health = dependencies.health()
      const ready = health.alive && health.ready
      return reply.code(ready ? 200 : 503).send(answer(ready, health))
    })
  }
}
