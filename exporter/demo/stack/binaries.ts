/**
 * Where the real servers' programs are: a folder of the user's own (RING2_STACK_DIR), or the one that
 * `npm run stack -- build` fills in the user's cache, named by a hash of the recipe. It builds nothing.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Ring2Error } from '../../errors.ts'
import { otelConfig } from './commands.ts'

/** Servers, and the tools that check their configurations. */
export const stackPrograms = [
  'otelcol',
  'jaeger',
  'prometheus',
  'promtool',
  'alertmanager',
  'amtool',
] as const

/** Pinned modules of each server; the hash covers every file in it. */
export const recipeFolder = join(otelConfig, 'stack')

/** Raise it when the way of building changes and not the recipe's files. */
const buildVersion = '1'

export function recipeHash(): string {
  const hash = createHash('sha256').update(buildVersion).update('\0')
  const entries = readdirSync(recipeFolder, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((e) => join(e.parentPath, e.name))
  for (const path of paths.sort()) {
    hash.update(path.slice(recipeFolder.length)).update('\0').update(readFileSync(path))
  }
  return hash.update(`${process.platform}-${process.arch}`).digest('hex').slice(0, 16)
}

/** Folder of the programs that this recipe builds, there or not. */
export function cachedStackFolder(): string {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  return join(cache, 'ring2', 'stack', recipeHash(), 'bin')
}

/**
 * The folder with all programs, or null when they have not been built.
 *
 * @throws Ring2Error RING2_E_CONFIG when RING2_STACK_DIR lacks one.
 */
export function stackBinaries(): string | null {
  const given = process.env.RING2_STACK_DIR
  const folder = given || cachedStackFolder()
  const missing = stackPrograms.filter((name) => !existsSync(join(folder, name)))
  if (missing.length === 0) return folder
  if (!given) return null
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `RING2_STACK_DIR=${given} to hold ${stackPrograms.join(', ')}`,
    actual: `it lacks ${missing.join(', ')}`,
    action: 'Add them, or unset RING2_STACK_DIR: `npm run stack -- build` builds them.',
  })
}

/** The folder with all programs. @throws Ring2Error RING2_E_CONFIG when they are not there. */
export function requireStackBinaries(): string {
  const folder = stackBinaries()
  if (folder !== null) return folder
  throw new Ring2Error('RING2_E_CONFIG', {
    expected: `the telemetry servers in ${cachedStackFolder()}`,
    actual: 'not built',
    action: 'Run `npm run stack -- build` (needs Go 1.26 or newer), or set RING2_STACK_DIR.',
  })
}
