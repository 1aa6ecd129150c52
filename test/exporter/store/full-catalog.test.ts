/**
 * A catalogue that has no room to grow, by the system's own limit: the file stays, the flush is tried
 * again, and afterwards everything is there once.
 */

import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const child = join(import.meta.dirname, 'full-catalog.child.ts')

test('a catalogue that has no room is written later, and the file is stored once', () => {
  const root = temporaryFolder()
  // Enough for the small Parquet file, too little for the tables of the catalogue.
  const limited = [
    '-c',
    'trap "" XFSZ; ulimit -S -f 32; exec "$0" "$@"',
    process.execPath,
    child,
    root,
  ]
  const done = spawnSync('bash', limited, { encoding: 'utf8' })
  expect(done.stderr).toBe('')
  const report = JSON.parse(done.stdout)
  expect(report).toMatchObject({
    prepared: 1,
    first: { status: 'retryable', code: 'RING2_E_STORE' },
    raised: 0,
    second: { status: 'success' },
  })
  expect(report.first.expected).toContain('the catalogue')
  const catalog = openCatalog(join(root, '.ring2', 'catalog.sqlite'))
  expect(catalog.files()).toHaveLength(1)
  catalog.close()
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.startsWith('catalog.sqlite'))
    .map((entry) => entry.name)
  expect(files).toHaveLength(1)
})
