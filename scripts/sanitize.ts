/** `npm run sanitize`: the native tests under ASan with UBSan, and the ring's under TSan. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { countCtest, runSuites } from './suites.ts'

const root = join(import.meta.dirname, '..')

function build(sanitizer: string): string {
  const folder = join(root, 'build', sanitizer)
  const steps = [
    [
      ...['-S', join(root, 'native'), '-B', folder, '-DCMAKE_BUILD_TYPE=RelWithDebInfo'],
      ...['-DRING2_TESTS=ON', `-DRING2_SANITIZE=${sanitizer}`],
    ],
    ['--build', folder, '-j', '2'],
  ]
  for (const step of steps) {
    const { status, stdout, stderr } = spawnSync('cmake', step, { encoding: 'utf8' })
    if (status === 0) continue
    process.stderr.write(`${stdout}${stderr}`)
    process.exit(1)
  }
  return folder
}

runSuites([
  {
    name: 'native under AddressSanitizer and UndefinedBehaviorSanitizer',
    program: 'ctest',
    arguments: ['--test-dir', build('address'), '--output-on-failure', '-j', '2'],
    count: countCtest,
  },
  {
    name: 'rings under ThreadSanitizer',
    program: 'ctest',
    arguments: [
      ...['--test-dir', build('thread'), '--output-on-failure', '-j', '2'],
      ...['-R', '^(Ring|Lifecycle|Hostile|Cuda|Dmi)'],
    ],
    count: countCtest,
  },
])
