/**
 * The exporter's configuration: defaults, then the YAML file, then the environment, then the
 * command line; the last one that sets a key wins. The result is complete, checked and frozen.
 */

import { isIP } from 'node:net'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { Ring2Error } from '../collector/errors.ts'
import { type ConfigKey, configKeys, findKey } from './config/keys.ts'
import { checkValue, type Environment, readEnvironment } from './config/read-environment.ts'
import { readConfigFile, type Sourced } from './config/read-file.ts'
import type { Config } from './config/schema.ts'

export type { Config, Environment }

/** Name of the file beside a configuration file. */
const BASELINES = 'baselines.json'

export interface ConfigInputs {
  /** Path of the YAML file; RING2_CONFIG is used when it is left out. */
  readonly file?: string
  readonly environment: Environment
  /** Key path → value, from the command line, e.g. `{ 'store.url': '/data' }`. */
  readonly overrides?: Readonly<Record<string, unknown>>
}

export interface LoadedConfig {
  readonly config: Config
  /** Absolute path of the file that was read, or null. */
  readonly file: string | null
  /** Key path → where its value came from: `default`, `file:line`, a variable, `command line`. */
  readonly sources: ReadonlyMap<string, string>
}

/**
 * Loads and checks the configuration.
 *
 * @throws Ring2Error RING2_E_CONFIG that names the key, where it came from, expected and actual.
 */
export function loadConfig(inputs: ConfigInputs): LoadedConfig {
  const { environment } = inputs
  const named = inputs.file ?? nonEmpty(environment.RING2_CONFIG)
  const file = named === undefined ? null : resolve(named)
  const values = new Map<string, Sourced>(defaults(environment, file))
  for (const [path, sourced] of file === null ? [] : readConfigFile(file)) values.set(path, sourced)
  for (const [path, sourced] of readEnvironment(environment)) values.set(path, sourced)
  for (const [path, sourced] of readOverrides(inputs.overrides ?? {})) values.set(path, sourced)
  const config = assemble(values, environment)
  checkTogether(config, values)
  const sources = new Map([...values].map(([path, { source }]) => [path, source]))
  return { config, file, sources }
}

/** The configuration as YAML, each key with where it came from; secrets are masked. */
export function printConfig(loaded: LoadedConfig): string {
  const lines: string[] = []
  let section = ''
  for (const key of configKeys) {
    const value = keyValue(maskSecrets(loaded.config), key)
    if (value === undefined) continue
    if (key.section !== section) {
      section = key.section
      lines.push(`${section}:`)
    }
    const shownValue = stringify(value, { collectionStyle: 'flow', lineWidth: 0 }).trim()
    lines.push(`  ${key.name}: ${shownValue}  # ${loaded.sources.get(key.path) ?? 'unset'}`)
  }
  return `${lines.join('\n')}\n`
}

/** A copy fit for printing: `***` for every secret that is set. */
export function maskSecrets(config: Config): Config {
  const copy = structuredClone(config) as unknown as Record<string, Record<string, unknown>>
  for (const key of configKeys) {
    const keys = copy[key.section]
    if (key.secret && keys !== undefined && keys[key.name] !== undefined) keys[key.name] = '***'
  }
  return copy as unknown as Config
}

/** Whether an address is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1' || host === '[::1]') return true
  return isIP(host) === 4 && host.startsWith('127.')
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text
}

function defaults(environment: Environment, file: string | null): [string, Sourced][] {
  const folders: readonly (readonly [string, string | undefined])[] = [
    ['~/.cache/', nonEmpty(environment.XDG_CACHE_HOME)],
    ['~/.config/', nonEmpty(environment.XDG_CONFIG_HOME)],
  ]
  const placed = (key: ConfigKey, initial: unknown): unknown => {
    if (typeof initial !== 'string') return initial
    // What was learnt belongs to the configuration that it was learnt under.
    if (key.path === 'verdict.baselines' && file !== null) return join(dirname(file), BASELINES)
    for (const [home, folder] of folders) {
      if (folder !== undefined && initial.startsWith(home)) {
        return join(folder, initial.slice(home.length))
      }
    }
    return initial
  }
  return configKeys
    .filter((key) => key.schema.default !== undefined)
    .map((key) => {
      const initial = key.schema.default
      return [key.path, { value: placed(key, initial), source: 'default' }]
    })
}

function readOverrides(overrides: Readonly<Record<string, unknown>>): Map<string, Sourced> {
  const values = new Map<string, Sourced>()
  for (const [path, value] of Object.entries(overrides)) {
    if (value === undefined) continue
    const key = findKey(path)
    if (key === undefined) {
      throw new Ring2Error('RING2_E_CONFIG', {
        expected: `one of the keys ${configKeys.map(({ path: known }) => known).join(', ')}`,
        actual: `the unknown key ${path} (command line)`,
      })
    }
    checkValue(key, value, 'the command line')
    values.set(path, { value, source: 'command line' })
  }
  return values
}

function assemble(values: ReadonlyMap<string, Sourced>, environment: Environment): Config {
  const sections: Record<string, Record<string, unknown>> = {}
  for (const key of configKeys) {
    sections[key.section] ??= {}
    const sourced = values.get(key.path)
    if (sourced === undefined) continue
    const value = isPath(key) ? expandPath(String(sourced.value), environment) : sourced.value
    Object.assign(sections[key.section] ?? {}, { [key.name]: deepFreeze(structuredClone(value)) })
  }
  for (const section of Object.values(sections)) Object.freeze(section)
  // Every key was checked against its schema, and every key without a default is optional in it.
  return Object.freeze(sections) as unknown as Config
}

const pathKeys = new Set(['store.url', 'store.spool', 'segments.directory', 'verdict.baselines'])

function isPath(key: ConfigKey): boolean {
  return pathKeys.has(key.path)
}

/** Paths become absolute: `~` is the home directory, a relative path begins at the working one. */
function expandPath(text: string, environment: Environment): string {
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) return text
  const home = nonEmpty(environment.HOME) ?? homedir()
  if (text === '~') return home
  return resolve(text.startsWith('~/') ? join(home, text.slice(2)) : text)
}

function deepFreeze<T>(value: T): T {
  return typeof value === 'object' && value !== null ? Object.freeze(value) : value
}

function checkTogether(config: Config, values: ReadonlyMap<string, Sourced>): void {
  if (isLoopback(config.api.host) || config.api.token !== undefined) return
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: 'api.token to be set, because api.host is not a loopback address',
    actual: `api.host ${config.api.host} (${values.get('api.host')?.source}) and no token`,
    action: 'Set api.token (or RING2_API_TOKEN), or listen on 127.0.0.1.',
  })
}

function keyValue(config: Config, key: ConfigKey): unknown {
  const sections = config as unknown as Record<string, Record<string, unknown>>
  return sections[key.section]?.[key.name]
}
