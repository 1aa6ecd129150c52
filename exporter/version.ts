/** The version of the exporter, from package.json. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

function readVersion(): string {
  const text = readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8')
  return String((JSON.parse(text) as { version: unknown }).version)
}

export const version = readVersion()
