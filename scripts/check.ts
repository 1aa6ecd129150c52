/** `npm run check`: types, lint, and generated files that are not stale. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const bin = (name: string): string => join(root, 'node_modules', '.bin', name)

const checks: readonly (readonly [string, string, readonly string[]])[] = [
  ['types', bin('tsc'), ['-p', root]],
  ['types of the explorer', bin('tsc'), ['-p', join(root, 'explorer'), '--noEmit']],
  ['lint', bin('biome'), ['ci', '--colors=off', '--error-on-warnings', root]],
  ['generated from native/', process.execPath, ['native/gen/generate.ts', '--check']],
  [
    'generated from signals and configuration',
    process.execPath,
    ['exporter/telemetry/generate.ts', '--check'],
  ],
  ['dashboards and alert rules', process.execPath, ['dashboards/generate.ts', '--check']],
]

let failed = 0
for (const [name, program, args] of checks) {
  const { status } = spawnSync(program, args, { cwd: root, stdio: 'inherit' })
  process.stdout.write(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}\n`)
  if (status !== 0) failed += 1
}
process.exitCode = failed === 0 ? 0 : 1
