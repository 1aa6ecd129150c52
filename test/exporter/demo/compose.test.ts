import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { composeIsThere, startCompose } from '../../../exporter/demo/compose.ts'

const folder = mkdtempSync(join(tmpdir(), 'ring2-compose-'))
const calls = join(folder, 'calls')
const pages = createServer((_request, response) => response.end('ready'))

/** A docker that writes down what it is asked, and fails where `refuses` says so. */
function pretend(refuses: string): void {
  const program = join(folder, 'docker')
  writeFileSync(
    program,
    `#!/bin/sh\necho "$@" >> ${calls}\ncase "$*" in ${refuses}) echo "refused" >&2; exit 1;; esac\n`,
  )
  chmodSync(program, 0o755)
  vi.stubEnv('PATH', `${folder}${delimiter}${process.env.PATH}`)
}

const asked = (): string[] => readFileSync(calls, 'utf8').trim().split('\n')

beforeAll(async () => {
  await new Promise<void>((resolve) => {
    pages.listen(0, '127.0.0.1', resolve)
  })
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(calls, { force: true })
})
afterAll(() => {
  pages.close()
  rmSync(folder, { recursive: true })
})

function urls() {
  const url = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  return {
    ...{ otlpGrpc: url, otlpHttp: url, collectorMetrics: url },
    ...{ jaeger: url, prometheus: url, alertmanager: url },
  }
}

test('docker counts when its engine answers and it has compose', async () => {
  pretend('nothing')
  expect(await composeIsThere()).toBe(true)
  pretend('info')
  expect(await composeIsThere()).toBe(false)
  pretend('"compose version"')
  expect(await composeIsThere()).toBe(false)
})

test('the servers are a compose project of their own that is removed at the end', async () => {
  pretend('nothing')
  const servers = await startCompose('ring2-test', urls())
  expect(servers.urls.otlpGrpc).toBe(urls().otlpGrpc)
  await servers.stop()
  const project = /^compose --file \/.*\/otel-config\/compose\.yaml --project-name ring2-test /
  expect(asked().every((line) => project.test(line))).toBe(true)
  expect(asked().map((line) => line.replace(project, ''))).toEqual([
    'up --detach --wait',
    'down --volumes',
  ])
})

test('servers that do not start are removed, and the error says what docker said', async () => {
  pretend('*up*')
  await expect(startCompose('ring2-test', urls())).rejects.toThrow(/docker compose.*refused/s)
  expect(asked().at(-1)).toContain('down --volumes')
})
