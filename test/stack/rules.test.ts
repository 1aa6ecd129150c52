import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { alerts } from '../../dashboards/alerts/alerts.ts'
import { requireStackBinaries } from '../../exporter/demo/stack/binaries.ts'
import { stackIsThere } from '../helpers/stack.ts'

const folder = new URL('../../otel-config/prometheus/rules', import.meta.url).pathname
const testFiles = globSync('*.test.yaml', { cwd: folder }).sort()

function promtool(...arguments_: readonly string[]): { status: number | null; output: string } {
  const program = join(requireStackBinaries(), 'promtool')
  const { status, stdout, stderr } = spawnSync(program, arguments_, {
    cwd: folder,
    encoding: 'utf8',
  })
  return { status, output: stdout + stderr }
}

interface RuleTests {
  readonly tests: readonly {
    readonly promql_expr_test?: readonly {
      readonly expr: string
      readonly exp_samples: readonly { readonly labels: string }[]
    }[]
  }[]
}

const expectations = testFiles
  .map((name) => parse(readFileSync(join(folder, name), 'utf8')) as RuleTests)
  .flatMap(({ tests }) => tests.flatMap((one) => one.promql_expr_test ?? []))

describe('The tests of the alert rules', () => {
  test.each(alerts)('see $name fire, and see it silent', ({ name }) => {
    const own = expectations.filter(({ expr }) => expr.includes(`"${name}"`))
    const fires = own.some(({ exp_samples: samples }) =>
      samples.some(({ labels }) => labels.includes('firing')),
    )
    const silent = own.some(({ exp_samples: samples }) => samples.length === 0)
    expect({ fires, silent }).toEqual({ fires: true, silent: true })
  })
})

describe.runIf(stackIsThere())('promtool', () => {
  test('takes the rules', () => {
    const { status, output } = promtool('check', 'rules', 'ring2.rules.yaml')
    expect(output).toContain('SUCCESS')
    expect(status).toBe(0)
  })

  test.each(testFiles)('finds that the rules do what %s says', (name) => {
    const { status, output } = promtool('test', 'rules', name)
    expect(output).toContain('SUCCESS')
    expect(status, output).toBe(0)
  })
})
