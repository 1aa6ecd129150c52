/** `npm test`: all suites, in the order in which one stands on the other. */
import { join } from 'node:path'
import { countCtest, countPytest, countVitest, runSuites } from './suites.ts'

const root = join(import.meta.dirname, '..')
const python = process.env.RING2_PYTHON ?? join(root, '.venv', 'bin', 'python')
// Passed tests leave nothing behind: each has rings of some 200 MiB in its folder.
const pytest = ['-m', 'pytest', '-q', '-o', 'tmp_path_retention_policy=failed']
// More threads than free cores make decoding several times slower.
const torch = { OMP_NUM_THREADS: '1', HF_HUB_OFFLINE: '1' }

runSuites([
  {
    name: 'native: ring, statistics (ctest)',
    program: 'ctest',
    arguments: ['--test-dir', join(root, 'build', 'native'), '--output-on-failure', '-j', '2'],
    count: countCtest,
  },
  {
    name: 'native statistics against NumPy (pytest)',
    program: python,
    arguments: [...pytest, join(root, 'native', 'test', 'numpy')],
    environment: torch,
    count: countPytest,
  },
  {
    name: 'Python producer on real weights (pytest)',
    program: python,
    arguments: [...pytest, join(root, 'test', 'python')],
    environment: torch,
    count: countPytest,
  },
  {
    name: 'vLLM with the plugin (pytest)',
    program: python,
    arguments: [...pytest, join(root, 'test', 'vllm')],
    environment: torch,
    count: countPytest,
  },
  {
    name: 'collector, exporter, end to end (vitest)',
    program: process.execPath,
    arguments: [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--root', root],
    environment: torch,
    count: countVitest,
  },
])
