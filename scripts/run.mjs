/**
 * Every npm script begins here: sets up what the command needs, once, and then runs it.
 *
 * Runs on any Node from 20 on and needs no package: it is what installs them. Progress goes to
 * standard error. What is set up already costs a few file reads.
 */
import { spawnSync } from 'node:child_process'
import {
  ensureExplorer,
  ensureLlamaCpp,
  ensureModel,
  ensureNative,
  ensurePackages,
  ensurePeers,
  ensurePython,
  ensureStack,
  ensureWatchers,
  fail,
  root,
  tools,
} from './setup.mjs'

const needs = {
  demo: ['packages', 'native', 'explorer', 'python', 'model'],
  test: ['packages', 'native-tests', 'explorer', 'python', 'llama-cpp', 'model', 'stack-if-go'],
  bench: ['packages', 'native-tests', 'python', 'llama-cpp', 'peers', 'model', 'stack-if-go'],
  check: ['packages', 'native'],
  sanitize: ['packages'],
  gen: ['packages'],
  setup: ['packages', 'native-tests', 'explorer', 'python', 'llama-cpp', 'model'],
  native: ['packages', 'native'],
  stack: ['packages'],
}

const programs = {
  demo: [['exporter/main.ts', 'demo']],
  test: [['scripts/test.ts']],
  bench: [['bench/run.ts']],
  check: [['scripts/check.ts']],
  sanitize: [['scripts/sanitize.ts']],
  gen: [['native/gen/generate.ts'], ['exporter/telemetry/generate.ts'], ['dashboards/generate.ts']],
  setup: [],
  native: [],
  stack: [['scripts/stack.ts']],
}

const [command = '', ...rest] = process.argv.slice(2)
if (!(command in needs)) {
  fail(`unknown command ${JSON.stringify(command)}; expected ${Object.keys(needs).join(', ')}`)
}

const steps = {
  packages: ensurePackages,
  native: () => ensureNative(false),
  'native-tests': () => ensureNative(true),
  explorer: ensureExplorer,
  python: ensurePython,
  'llama-cpp': ensureLlamaCpp,
  peers: ensurePeers,
  model: ensureModel,
  watchers: ensureWatchers,
  'stack-if-go': (environment) => ensureStack(false, environment),
}
if (command === 'demo' && rest.some((word) => /llama\.cpp$/.test(word)))
  needs.demo.push('llama-cpp')
if (command === 'demo' && rest.includes('--stack')) needs.demo.push('watchers')

const environment = { ...process.env }
for (const need of needs[command]) Object.assign(environment, steps[need](environment))

// Ctrl-C reaches the command as well, which ends in its own order; this process waits for it.
process.on('SIGINT', () => {})
for (const program of programs[command]) {
  const { status, signal } = spawnSync(tools.node(), [...program, ...rest], {
    cwd: root,
    env: environment,
    stdio: 'inherit',
  })
  if (status !== 0) process.exit(status ?? (signal === 'SIGINT' ? 130 : 1))
}
