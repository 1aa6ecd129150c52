/** Files made from a source: found stale, written, or only checked. It knows nothing of what is in them. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Path from the repository's root → content. */
export type GeneratedFiles = ReadonlyMap<string, string>

/** Files whose content on disk is another, or that are missing. */
export function staleAmong(files: GeneratedFiles, root: string): string[] {
  return [...files]
    .filter(([path, content]) => contentOf(join(root, path)) !== content)
    .map(([path]) => path)
}

/** Writes what is stale; with `--check` it writes nothing. @returns the exit code. */
export function writeOrCheck(
  files: GeneratedFiles,
  root: string,
  arguments_: readonly string[],
): number {
  const stale = staleAmong(files, root)
  if (arguments_.includes('--check')) {
    for (const path of stale) process.stderr.write(`stale: ${path}; run npm run gen\n`)
    return stale.length === 0 ? 0 : 1
  }
  for (const path of stale) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), files.get(path) ?? '')
    process.stderr.write(`written: ${path}\n`)
  }
  return 0
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
