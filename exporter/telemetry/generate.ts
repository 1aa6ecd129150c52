/**
 * Writes docs/signals.md, docs/config.md and config.schema.json from their sources; with `--check`
 * it writes nothing and fails when one of them is stale.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generateConfigDoc } from '../config/config-doc.ts'
import { publishedSchema } from '../config/keys.ts'
import { generateSignalsDoc } from './signals-doc.ts'

/** Path from the repository's root → content. */
export function generatedFiles(): ReadonlyMap<string, string> {
  return new Map([
    ['docs/signals.md', generateSignalsDoc()],
    ['docs/config.md', generateConfigDoc()],
    ['config.schema.json', `${jsonText(publishedSchema(), 0, 0)}\n`],
  ])
}

const LINE_CHARACTERS_MAX = 100

/** JSON as the repository's formatter writes it: arrays on one line where they fit. */
function jsonText(value: unknown, indent: number, column: number): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = ' '.repeat(indent + 2)
  const close = `\n${' '.repeat(indent)}`
  if (Array.isArray(value)) {
    const flat = `[${value.map((element) => JSON.stringify(element)).join(', ')}]`
    // One more character is for the comma that may follow.
    if (column + flat.length + 1 <= LINE_CHARACTERS_MAX) return flat
    const elements = value.map((element) => inner + jsonText(element, indent + 2, indent + 2))
    return `[\n${elements.join(',\n')}${close}]`
  }
  const members = Object.entries(value).map(([name, member]) => {
    const start = `${inner}${JSON.stringify(name)}: `
    return start + jsonText(member, indent + 2, start.length)
  })
  return `{\n${members.join(',\n')}${close}}`
}

/** Generated files whose content on disk is another, or that are missing. */
export function staleFiles(root: string): string[] {
  return [...generatedFiles()]
    .filter(([path, content]) => contentOf(join(root, path)) !== content)
    .map(([path]) => path)
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

function main(arguments_: readonly string[]): number {
  const root = join(import.meta.dirname, '../..')
  const stale = staleFiles(root)
  if (arguments_.includes('--check')) {
    for (const path of stale) process.stderr.write(`stale: ${path}; run npm run gen\n`)
    return stale.length === 0 ? 0 : 1
  }
  const files = generatedFiles()
  for (const path of stale) {
    writeFileSync(join(root, path), files.get(path) ?? '')
    process.stderr.write(`written: ${path}\n`)
  }
  return 0
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2))
