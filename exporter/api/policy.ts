/**
 * GET and PUT /v1/policy: what is captured, read and replaced while the exporter runs.
 *
 * Without a token a page in a browser on this machine must not be able to change it, so the name that
 * the API was reached by has to be this machine's too, as for a deletion.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { PolicyKeeper } from '../capture-policy.ts'
import { isLoopback } from '../config.ts'
import { foreignName } from './host-name.ts'
import { answers } from './schemas.ts'

const policySchema = Type.Object(
  {
    stats: Type.Array(Type.String()),
    tensors: Type.Array(Type.String()),
    layers: Type.Array(Type.String(), { description: 'HOOK[LAYERS], such as resid_pre[::4]' }),
    request_share: Type.Number(),
    sampled_only: Type.Boolean(),
    prefill: Type.Boolean(),
    decode_every: Type.Integer(),
  },
  { title: 'CapturePolicy', description: 'the keys of the configuration section `capture`' },
)

const answerSchema = Type.Object(
  { source: Type.String({ description: 'config, kept or set' }), policy: policySchema },
  { title: 'CapturePolicyAnswer' },
)

export function policyRoutes(
  keeper: Pick<PolicyKeeper, 'get' | 'set'>,
  token: string | null,
): FastifyPluginAsyncTypebox {
  return async (app) => {
    const tags = ['exporter']
    const response = answers(answerSchema)
    const getSchema = { summary: 'The capture policy in force', tags, response }
    app.get('/v1/policy', { schema: getSchema }, async () => keeper.get())
    // Read by the keeper, which names the key that is wrong; keys left out want everything.
    const body = Type.Unknown({ description: 'a CapturePolicy; keys left out want everything' })
    const putSchema = { summary: 'Replace the capture policy', tags, body, response }
    app.put('/v1/policy', { schema: putSchema }, async (request) => {
      if (token === null && !isLoopback(request.hostname)) throw foreignName(request)
      return await keeper.set(request.body)
    })
  }
}
