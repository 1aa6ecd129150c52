/** A folder for one test. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A folder of its own, removed when the test has finished. */
export function temporaryFolder(base = tmpdir()): string {
  const folder = mkdtempSync(join(base, 'ring2-store-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
