/**
 * Builds the HTTP server, without listening: routes, /openapi.json, the bearer token, and one form
 * for every error. Who listens, where, and with which bounds on addresses is the service's matter.
 */

import bearerAuth from '@fastify/bearer-auth'
import swagger from '@fastify/swagger'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyServerOptions,
  LogController,
} from 'fastify'
import { asRing2Error, Ring2Error } from '../errors.ts'
import { httpLimits } from '../limits.ts'
import { deletionRoutes } from './deletion.ts'
import type { ServerDependencies } from './dependencies.ts'
import { explorerRoutes } from './explorer.ts'
import { explorerPageRoutes } from './explorer-page.ts'
import { findTraces } from './find-trace.ts'
import { guardHost } from './host-name.ts'
import { policyRoutes } from './policy.ts'
import { knownError, notFound, sendProblem } from './problem.ts'
import { healthRoutes, systemRoutes } from './system.ts'
import { tapOff, tapRoutes } from './tap.ts'
import { tensorRoutes } from './tensors.ts'
import { traceRoutes } from './traces.ts'

export async function buildServer(dependencies: ServerDependencies): Promise<FastifyInstance> {
  const app = createApp(dependencies)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'ring2-exporter',
        description: 'Tensors of a running model, by trace id.',
        version: dependencies.version,
      },
      ...(dependencies.token === null ? {} : { components: { securitySchemes } }),
    },
  })
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  await app.register(healthRoutes(dependencies))
  await app.register(explorerPageRoutes(dependencies))
  await app.register(async (guarded) => {
    if (dependencies.token === null) guardHost(guarded, dependencies.baseUrl)
    else await guard(guarded, dependencies.token)
    if (dependencies.findTrace !== undefined) findTraces(guarded, dependencies.findTrace)
    await guarded.register(traceRoutes(dependencies))
    await guarded.register(tensorRoutes(dependencies))
    await guarded.register(explorerRoutes(dependencies))
    await guarded.register(systemRoutes(dependencies))
    const { tap, deleteTrace, policy, token } = dependencies
    if (policy !== undefined) await guarded.register(policyRoutes(policy, token))
    if (deleteTrace !== undefined) await guarded.register(deletionRoutes(deleteTrace, token))
    await guarded.register(tap === undefined ? tapOff : tapRoutes(tap))
  })
  return app
}

function createApp(dependencies: ServerDependencies): FastifyInstance {
  const logger: FastifyBaseLogger | null = dependencies.logger
  const options: FastifyServerOptions = {
    ...(logger === null ? { logger: false } : { loggerInstance: logger }),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: httpLimits.bodyBytesMax,
    requestTimeout: httpLimits.requestMillisMax,
    routerOptions: { maxParamLength: httpLimits.parameterCharactersMax },
    // An unknown parameter is a mistake to name, not one to drop; naming needs `verbose`.
    ajv: {
      customOptions: {
        removeAdditional: false,
        coerceTypes: false,
        allErrors: false,
        verbose: true,
      },
    },
  }
  const app = Fastify(options)
  // Schemas of answers are for /openapi.json; answers are written as they are.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  app.addHook('onSend', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff')
  })
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    return answerError(error, reply, (defect) => {
      request.log.error({ err: defect, url: request.url }, 'a request failed')
    })
  })
  app.setNotFoundHandler((request, reply) => {
    return sendProblem(reply, notFound(`${request.method} ${request.url.slice(0, 200)}`))
  })
  return app
}

/** By its name in /openapi.json. */
const securitySchemes = { bearer: { type: 'http', scheme: 'bearer' } } as const

const tensorHeaders = new Set([
  'accept-ranges',
  'cache-control',
  'content-disposition',
  'content-length',
  'content-range',
  'etag',
])

function answerError(
  error: unknown,
  reply: FastifyReply,
  logDefect: (error: unknown) => void,
): FastifyReply {
  const known = knownError(error)
  if (known === null || known.http >= 500) logDefect(error)
  // A half-built answer may have set headers of a tensor that is not sent now.
  for (const name of Object.keys(reply.getHeaders())) {
    if (name.startsWith('x-ring2-') || tensorHeaders.has(name)) reply.removeHeader(name)
  }
  if (known !== null) return sendProblem(reply, known)
  // What went wrong inside is in the log; callers need not read our stack traces.
  const defect = new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: 'an answer',
    actual: asRing2Error(error).actual,
  })
  return sendProblem(reply, defect)
}

/** Refusals go through the one error handler; comparing tokens in constant time is the plugin's. */
async function guard(app: FastifyInstance, token: string): Promise<void> {
  await app.register(bearerAuth, {
    keys: new Set([token]),
    addHook: false,
    // The name of the scheme in any case, as RFC 9110 (11.1) has it.
    specCompliance: 'rfc6749',
    verifyErrorLogLevel: 'debug',
  })
  const verify = app.verifyBearerAuth
  if (verify === undefined) throw new Error('the bearer-auth plugin has registered nothing')
  app.addHook('onRequest', verify)
  app.addHook('onRoute', (route) => {
    route.schema = { ...route.schema, security: [{ bearer: [] }] }
  })
}
