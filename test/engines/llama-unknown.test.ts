/** A llama.cpp that the library does not understand serves on, and one log line says what is off. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { library } from './llama/engine.ts'

const folder = mkdtempSync(join(tmpdir(), 'ring2-llama-'))
const source = join(import.meta.dirname, 'llama/fake.c')

afterAll(() => rmSync(folder, { recursive: true, force: true }))

function compile(words: readonly string[]): void {
  const { status, stderr } = spawnSync(process.env.CC ?? 'cc', words, { encoding: 'utf8' })
  expect(stderr).toBe('')
  expect(status).toBe(0)
}

/** Runs the program three decodes long, on a library that was built with the option. */
function run(option: string) {
  const built = join(folder, `libfake${option}.so`)
  const program = join(folder, `program${option}`)
  compile(['-shared', '-fPIC', `-D${option}`, '-o', built, source])
  compile(['-DFAKE_PROGRAM', '-o', program, source, built, `-Wl,-rpath,${folder}`])
  const environment = { LD_PRELOAD: library, RING2_LLAMA_DIRECTORY: folder }
  const done = spawnSync(program, { encoding: 'utf8', env: { ...process.env, ...environment } })
  return { ...done, segments: readdirSync(folder).filter((name) => name.startsWith('ring2.')) }
}

test('Without the functions that are needed the engine serves on, and one line names them', () => {
  const { stdout, stderr, status, segments } = run('FAKE_NOTHING')
  expect({ stdout, status, segments }).toEqual({ stdout: '21\n', status: 0, segments: [] })
  expect(stderr).toMatch(
    /^ring2: llama\.cpp: these functions are not there: ggml_op_desc, [^\n]*\n$/,
  )
  expect(stderr).toContain('Nothing is captured, the engine serves on')
})

test('With tensors that are laid out differently the engine serves on, and one line says which field', () => {
  const { stdout, stderr, status, segments } = run('FAKE_LAYOUT')
  expect({ stdout, status, segments }).toEqual({ stdout: '21\n', status: 0, segments: [] })
  expect(stderr).toMatch(
    /^ring2: llama\.cpp: the field "name" of its tensors is not where [^\n]*\n$/,
  )
})
