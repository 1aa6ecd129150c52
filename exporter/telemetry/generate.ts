/**
 * Writes docs/signals.md, docs/config.md and config.schema.json from their sources; with `--check`
 * it writes nothing and fails when one of them is stale.
 */

import { join } from 'node:path'
import { generateConfigDoc } from '../config/config-doc.ts'
import { publishedSchema } from '../config/keys.ts'
import { staleAmong, writeOrCheck } from './generated-files.ts'
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
  return staleAmong(generatedFiles(), root)
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '../..')
  process.exitCode = writeOrCheck(generatedFiles(), root, process.argv.slice(2))
}
