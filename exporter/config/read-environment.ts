/**
 * Reads configuration values from `RING2_…` environment variables.
 *
 * An empty variable counts as unset. A variable that begins with a section's name but is no key is
 * an error, because it is most likely misspelt; of other `RING2_…` variables,
 * those that nothing reads are warned of (unknown-variables.ts).
 */

import { Ajv2020 } from 'ajv/dist/2020.js'
import { Ring2Error } from '../../collector/errors.ts'
import { acceptedText, type ConfigKey, configKeys, configSections } from './keys.ts'
import { messageOf, type Sourced, shown } from './read-file.ts'

export type Environment = Readonly<Record<string, string | undefined>>

const ajv = new Ajv2020({ strict: true })
const validators = new Map(configKeys.map((key) => [key.path, ajv.compile(key.schema)]))
const variables = new Map(configKeys.map((key) => [key.variable, key]))

/**
 * @returns key path → value and variable, for the keys that the environment sets.
 * @throws Ring2Error RING2_E_CONFIG
 */
export function readEnvironment(environment: Environment): Map<string, Sourced> {
  const values = new Map<string, Sourced>()
  for (const [variable, textValue] of Object.entries(environment)) {
    if (textValue === undefined || textValue === '') continue
    const key = variables.get(variable)
    if (key === undefined) {
      refuseMisspelt(variable)
      continue
    }
    const value = parseText(key, textValue)
    checkValue(key, value, variable)
    values.set(key.path, { value, source: variable })
  }
  return values
}

/** @throws Ring2Error RING2_E_CONFIG when the value does not fit the key. */
export function checkValue(key: ConfigKey, value: unknown, source: string): void {
  const validate = validators.get(key.path)
  if (validate?.(value) === true) return
  const [error] = validate?.errors ?? []
  const fault = error === undefined ? 'not valid' : messageOf(error)
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `${acceptedText(key.schema)} as ${key.path} from ${source}`,
    actual: `${key.secret ? 'another value' : shown(value)} (${fault})`,
  })
}

/** Text → value of the key's type; text that does not fit stays text, and is refused later. */
function parseText(key: ConfigKey, textValue: string): unknown {
  const { type } = key.schema
  const trimmed = textValue.trim()
  if (type === 'boolean') {
    if (/^(true|1)$/i.test(trimmed)) return true
    if (/^(false|0)$/i.test(trimmed)) return false
    return textValue
  }
  if (type === 'integer' || type === 'number') {
    return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(trimmed) ? Number(trimmed) : textValue
  }
  if (type === 'array')
    return trimmed === 'none' ? [] : trimmed.split(',').map((part) => part.trim())
  return textValue
}

function refuseMisspelt(variable: string): void {
  const section = [...configSections.keys()].find((name) =>
    variable.startsWith(`RING2_${name.toUpperCase()}_`),
  )
  if (section === undefined) return
  const known = configKeys.filter((key) => key.section === section).map((key) => key.variable)
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `one of the variables ${known.join(', ')}`,
    actual: `the unknown variable ${variable}`,
  })
}
