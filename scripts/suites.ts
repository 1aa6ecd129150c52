/** Runs one test suite after the other and counts what passed, for a closing line. */
import { spawnSync } from 'node:child_process'

export interface Suite {
  readonly name: string
  readonly program: string
  readonly arguments: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** Reads passed and failed out of the suite's own output. */
  count(output: string): { passed: number; failed: number } | null
}

const escapes = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, 'g')

function lastNumber(output: string, pattern: RegExp): number {
  const matches = [...output.matchAll(pattern)]
  return Number(matches.at(-1)?.[1] ?? 0)
}

export function countCtest(output: string) {
  const total = lastNumber(output, /tests failed out of (\d+)/g)
  const failed = lastNumber(output, /(\d+) tests failed out of/g)
  return total === 0 ? null : { passed: total - failed, failed }
}

export function countPytest(output: string) {
  const passed = lastNumber(output, /(\d+) passed/g)
  const failed = lastNumber(output, /(\d+) failed/g) + lastNumber(output, /(\d+) errors? in /g)
  return passed + failed === 0 ? null : { passed, failed }
}

export function countVitest(output: string) {
  const line = output.split('\n').findLast((text) => /^\s*Tests\s/.test(text)) ?? ''
  const passed = lastNumber(line, /(\d+) passed/g)
  const failed = lastNumber(line, /(\d+) failed/g)
  return passed + failed === 0 ? null : { passed, failed }
}

/** Runs all suites, whatever fails, prints `N passed, N failed`, and sets the exit code. */
export function runSuites(suites: readonly Suite[]): void {
  let passed = 0
  let failed = 0
  const broken: string[] = []
  for (const suite of suites) {
    process.stdout.write(`\n── ${suite.name}\n`)
    const { status, stdout, stderr, error } = spawnSync(suite.program, suite.arguments, {
      encoding: 'utf8',
      env: { ...process.env, ...suite.environment },
      maxBuffer: 1 << 28,
    })
    const output = `${stdout ?? ''}${stderr ?? ''}`.replaceAll(escapes, '')
    process.stdout.write(output)
    const counts = suite.count(output)
    passed += counts?.passed ?? 0
    failed += counts?.failed ?? 0
    // A suite that ran nothing, or ended badly without a failed test, is a failure of its own.
    if (error !== undefined || status !== 0 || counts === null) {
      broken.push(suite.name)
      if ((counts?.failed ?? 0) === 0) failed += 1
    }
  }
  if (broken.length > 0) process.stdout.write(`\nfailed: ${broken.join(', ')}\n`)
  process.stdout.write(`\n${passed} passed, ${failed} failed\n`)
  process.exitCode = failed === 0 ? 0 : 1
}
