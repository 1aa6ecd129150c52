/**
 * What the validator found wrong with a request's parameters, in our words: what was expected and
 * what came. The validator must be set to `verbose`, as values come from what it looked at. Pure.
 */

import { Ring2Error } from '../errors.ts'

const SHOWN_CHARACTERS = 80

interface Finding {
  readonly keyword: string
  /** `/format`; empty for the parameters as a whole. */
  readonly name: string
  readonly params: Readonly<Record<string, unknown>>
  readonly message: string
  readonly data: unknown
  /** Names that the schema knows at this place. */
  readonly known: readonly string[]
}

/** @param validation the validator's findings, as Fastify hands them on. */
export function parameterError(validation: unknown): Ring2Error {
  const findings = Array.isArray(validation) ? validation.map(findingOf) : []
  const [first] = findings
  const facts =
    first === undefined
      ? { expected: 'parameters as /openapi.json describes them', actual: 'others' }
      : (factsOf(first, findings) ?? {
          expected: `${first.name || 'the request'}: ${first.message}`,
          actual: shown(first.data),
        })
  return new Ring2Error('RING2_E_QUERY', facts)
}

interface Facts {
  readonly expected: string
  readonly actual: string
}

function factsOf(finding: Finding, all: readonly Finding[]): Facts | null {
  const { keyword, name, params, data } = finding
  switch (keyword) {
    case 'additionalProperties':
      return {
        expected: `no parameters but ${finding.known.join(', ')}`,
        actual: shown(params.additionalProperty),
      }
    case 'const': {
      const allowed = all.filter((one) => one.keyword === 'const' && one.name === name)
      const values = allowed.map((one) => String(one.params.allowedValue))
      return { expected: `${name}=${values.join(', ')}`, actual: shown(data) }
    }
    case 'maxLength':
      return {
        expected: `${name} of at most ${String(params.limit)} characters`,
        actual: `${String(data).length} characters`,
      }
    case 'type':
      if (!Array.isArray(data)) return null
      return { expected: `${name} once`, actual: `${data.length} times` }
    default:
      return null
  }
}

function findingOf(value: unknown): Finding {
  const error = recordOf(value)
  return {
    keyword: String(error.keyword),
    name: String(error.instancePath ?? '').slice(1),
    params: recordOf(error.params),
    message: String(error.message),
    data: error.data,
    known: Object.keys(recordOf(recordOf(error.parentSchema).properties)),
  }
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text
}
