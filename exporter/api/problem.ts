/**
 * Errors over HTTP: application/problem+json (RFC 9457) with the stable code, what was expected,
 * what came, and what to do. The status comes from the error table.
 */

import type { FastifyReply } from 'fastify'
import { type Static, Type } from 'typebox'
import { Ring2Error } from '../errors.ts'
import { RETRY_AFTER_SECONDS } from './answer-budget.ts'
import { parameterError } from './parameter-error.ts'

export const PROBLEM_CONTENT_TYPE = 'application/problem+json; charset=utf-8'

export const problemSchema = Type.Object(
  {
    type: Type.String({ description: 'urn:ring2:error: and the code' }),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String({ description: 'stable; docs/errors.md lists all' }),
    expected: Type.String(),
    actual: Type.String(),
    action: Type.String({ description: 'what to do' }),
  },
  { title: 'Problem', description: 'RFC 9457' },
)

export type Problem = Static<typeof problemSchema>

/** @param status replaces the status of the error table. */
export function problemOf(error: Ring2Error, status: number = error.http): Problem {
  const { code, expected, actual, action } = error
  const title = String(error.toJSON().title)
  return { type: `urn:ring2:error:${code}`, title, status, code, expected, actual, action }
}

export function sendProblem(
  reply: FastifyReply,
  error: Ring2Error,
  status: number = error.http,
): FastifyReply {
  if (status === 401) reply.header('www-authenticate', 'Bearer')
  if (error.code === 'RING2_E_OVERLOADED') reply.header('retry-after', RETRY_AFTER_SECONDS)
  return reply.code(status).type(PROBLEM_CONTENT_TYPE).send(problemOf(error, status))
}

/** What Fastify or a handler threw, as one of our errors; null for a defect. */
export function knownError(error: unknown): Ring2Error | null {
  if (error instanceof Ring2Error) return error
  if (typeof error !== 'object' || error === null) return null
  const status = 'statusCode' in error ? Number(error.statusCode) : 500
  const message = error instanceof Error ? error.message : 'an error'
  if ('validation' in error) return parameterError(error.validation)
  if (status === 401) {
    return new Ring2Error('RING2_E_UNAUTHORIZED', {
      expected: 'Authorization: Bearer with a token of the configuration',
      actual: message,
    })
  }
  if (status === 404 || status === 405) return notFound(message)
  if (status < 400 || status >= 500) return null
  return new Ring2Error('RING2_E_QUERY', { expected: 'a valid HTTP request', actual: message })
}

export function notFound(what: string): Ring2Error {
  return new Ring2Error('RING2_E_NOT_FOUND', {
    expected: 'a route of /openapi.json',
    actual: what,
  })
}
