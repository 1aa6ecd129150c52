/**
 * Builds the real Collector, Jaeger, Prometheus and Alertmanager from their own Go modules, at the versions
 * that otel-config/stack/ pins, into the user's cache. Built once per recipe; whole or not at all.
 */
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { cachedStackFolder, recipeFolder, stackBinaries } from '../exporter/demo/stack/binaries.ts'
import { Ring2Error } from '../exporter/errors.ts'

/** That of the Collector's own generator of sources. */
const goMinor = 26
const builder = 'go.opentelemetry.io/collector/cmd/builder@v0.155.0'

interface Server {
  readonly name: string
  readonly tags: readonly string[]
  readonly packages: readonly string[]
  /** Of CPU time, with empty caches. */
  readonly minutes: number
}

// remove_all_sd leaves out service discovery by cloud providers: most of Prometheus's dependencies.
const servers: readonly Server[] = [
  { name: 'otelcol', tags: ['-tags', 'remove_all_sd'], packages: ['.'], minutes: 4 },
  {
    name: 'prometheus',
    tags: ['-tags', 'remove_all_sd'],
    packages: [
      'github.com/prometheus/prometheus/cmd/prometheus',
      'github.com/prometheus/prometheus/cmd/promtool',
    ],
    minutes: 4,
  },
  {
    name: 'jaeger',
    tags: [],
    packages: ['github.com/jaegertracing/jaeger/cmd/jaeger'],
    minutes: 6,
  },
  {
    name: 'alertmanager',
    tags: [],
    packages: [
      'github.com/prometheus/alertmanager/cmd/alertmanager',
      'github.com/prometheus/alertmanager/cmd/amtool',
    ],
    minutes: 1,
  },
]

function say(text: string): void {
  process.stderr.write(`ring2: ${text}\n`)
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`
}

/** Go's version when it is new enough, else what there is instead. */
export function findGo(): { found: true } | { found: false; actual: string } {
  const { status, stdout, error } = spawnSync('go', ['env', 'GOVERSION'], {
    encoding: 'utf8',
    env: { ...process.env, GOTOOLCHAIN: 'local' },
  })
  if (error !== undefined || status !== 0) return { found: false, actual: 'no program `go`' }
  const version = stdout.trim()
  const minor = Number(/^go1\.(\d+)/.exec(version)?.[1] ?? 0)
  return minor >= goMinor ? { found: true } : { found: false, actual: version }
}

/**
 * The folder with all programs, built when it is not there.
 *
 * @throws Ring2Error RING2_E_CONFIG without Go, RING2_E_INTERNAL_EXPORTER when a build fails.
 */
export function buildStack(): string {
  const present = stackBinaries()
  if (present !== null) return present
  const go = findGo()
  if (!go.found) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: `Go 1.${goMinor} or newer, to build the telemetry servers`,
      actual: go.actual,
      action:
        'Install Go from https://go.dev/dl/ (distributions often have an older one), or set RING2_STACK_DIR to a folder with programs of your own.',
    })
  }
  const began = performance.now()
  say(
    'building the telemetry servers, once: about 10 minutes on 2 cores when Go has nothing cached',
  )
  const target = dirname(cachedStackFolder())
  mkdirSync(dirname(target), { recursive: true })
  // Beside the target, so that the rename stays within one file system.
  const folder = mkdtempSync(`${target}.`)
  try {
    mkdirSync(join(folder, 'bin'))
    for (const server of servers) build(server, folder)
    rmSync(join(folder, 'sources'), { recursive: true, force: true })
    publish(folder, target)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  say(`built the telemetry servers in ${seconds(began)}: ${cachedStackFolder()}`)
  return cachedStackFolder()
}

/** A build that another process has finished meanwhile is as good. */
function publish(folder: string, target: string): void {
  if (existsSync(target) && stackBinaries() === null) rmSync(target, { recursive: true })
  if (!existsSync(target)) renameSync(folder, target)
}

function build(server: Server, folder: string): void {
  const began = performance.now()
  say(`  ${server.name} … (up to ${server.minutes} min)`)
  const sources =
    server.name === 'otelcol' ? collectorSources(folder) : join(recipeFolder, server.name)
  // A folder as output: several packages each become a program of their own name there.
  const output = join(folder, 'bin', server.name === 'otelcol' ? 'otelcol' : '')
  const flags = ['-mod=readonly', '-trimpath', '-ldflags=-s -w', ...server.tags]
  go(['build', ...flags, '-o', output, ...server.packages], sources)
  say(`  ${server.name} built in ${seconds(began)}`)
}

/** The Collector's main package is generated from its list of components, beside the pinned go.mod. */
function collectorSources(folder: string): string {
  const sources = join(folder, 'sources')
  cpSync(join(recipeFolder, 'otelcol'), sources, { recursive: true })
  go(['install', builder], sources, { GOBIN: sources })
  const generate = ['--skip-compilation', '--skip-get-modules', '--config', 'builder-config.yaml']
  run(join(sources, 'builder'), generate, sources)
  for (const name of readdirSync(join(sources, 'build'))) {
    if (name.endsWith('.go')) cpSync(join(sources, 'build', name), join(sources, name))
  }
  rmSync(join(sources, 'build'), { recursive: true })
  return sources
}

function go(args: readonly string[], cwd: string, environment: Record<string, string> = {}): void {
  run('go', args, cwd, {
    CGO_ENABLED: '0',
    GOTOOLCHAIN: 'local',
    GOFLAGS: '-buildvcs=false',
    GOWORK: 'off',
    ...environment,
  })
}

function run(
  program: string,
  args: readonly string[],
  cwd: string,
  environment: Record<string, string> = {},
): void {
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    cwd,
    env: { ...process.env, ...environment },
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  if (error === undefined && status === 0) return
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`)
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: `\`${program} ${args.join(' ')}\` to succeed in ${cwd}`,
    actual: error?.message ?? `status ${status ?? signal}`,
    action: 'Read its output above; the first build needs a Go module proxy (GOPROXY).',
  })
}
