/** The file of baselines, as the running exporter sees it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { watchBaselines } from '../../exporter/baselines.ts'

test('of a damaged file the fault is said once, with its code in front', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-baselines-'))
  const path = join(folder, 'baselines.json')
  writeFileSync(path, '{')
  const watch = watchBaselines({
    path,
    logger: pino({ level: 'silent' }),
    onChange: () => undefined,
  })
  watch.stop()
  rmSync(folder, { recursive: true })
  const { fault } = watch.book()
  expect(fault?.match(/RING2_E_BASELINE/g)).toEqual(['RING2_E_BASELINE'])
  expect(fault).toMatch(/^RING2_E_BASELINE: /)
})
