/**
 * `RING2_…` variables that nothing reads, most likely misspelt. Pure.
 *
 * Not here: those that begin with a section's name, which are errors (read-environment.ts).
 */

import { configKeys } from './keys.ts'
import type { Environment } from './read-environment.ts'

const PREFIX = 'RING2_'

/** Variables of the whole project that are no keys: the library's, the producer's, the stack's. */
const otherVariables: readonly string[] = [
  'RING2_CONFIG',
  'RING2_ISA',
  'RING2_DMI_BRIDGE',
  'RING2_LIBRARY',
  'RING2_MODEL_DIR',
  'RING2_PYTHON',
  'RING2_PYTHON_LIBRARY',
  'RING2_REQUIRE_STACK',
  'RING2_STACK_DIR',
  'RING2_TAP',
  'RING2_TAP_ENDPOINT',
  'RING2_TAP_TOKEN',
  'RING2_WEED',
]

/** Of test programs, whatever follows. */
const TEST_PREFIX = 'RING2_TEST_'

export interface UnknownVariable {
  readonly variable: string
  /** The variable that is spelt most like it. */
  readonly nearest: string
}

export function unknownVariables(environment: Environment): UnknownVariable[] {
  const known = [...configKeys.map(({ variable }) => variable), ...otherVariables]
  return Object.entries(environment)
    .filter(([variable, value]) => variable.startsWith(PREFIX) && (value ?? '') !== '')
    .map(([variable]) => variable)
    .filter((variable) => !known.includes(variable) && !variable.startsWith(TEST_PREFIX))
    .sort()
    .map((variable) => ({ variable, nearest: nearestOf(variable, known) }))
}

function nearestOf(variable: string, known: readonly string[]): string {
  const distances = known.map((name) => ({ name, distance: distance(variable, name) }))
  return distances.reduce((best, one) => (one.distance < best.distance ? one : best)).name
}

/** Levenshtein's: how many characters to add, remove or change. */
function distance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (const [at, character] of [...left].entries()) {
    const next = [at + 1]
    for (let column = 0; column < right.length; column += 1) {
      const changed = (row[column] ?? 0) + (character === right[column] ? 0 : 1)
      next.push(Math.min(changed, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}
