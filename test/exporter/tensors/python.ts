/** The Python of the project's environment, for reading with PyArrow and NumPy. */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const project = join(import.meta.dirname, '../../..')

function pythonPath(): string {
  const chosen = process.env.RING2_PYTHON ?? join(project, '.venv/bin/python')
  if (existsSync(chosen)) return chosen
  throw new Error(`no Python at ${chosen}: run npm run setup, or set RING2_PYTHON`)
}

/** Runs a script and returns its stdout; throws with its stderr when it fails. */
export function runPython(script: string, args: readonly string[]): string {
  const done = spawnSync(pythonPath(), [script, ...args], {
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  })
  if (done.status === 0) return done.stdout
  throw new Error(`${script} failed (${done.status}): ${done.stderr}`)
}
