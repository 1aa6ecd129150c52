import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { requireStackBinaries } from '../../exporter/demo/stack/binaries.ts'
import { collectorEnvironment, otelConfig } from '../../exporter/demo/stack/commands.ts'
import { freePorts } from '../../exporter/demo/stack/ports.ts'
import { stackIsThere, startTestStack } from '../helpers/stack.ts'

const run = promisify(execFile)

/** Exit code and output, whatever the code is. */
async function outcome(program: string, args: string[], environment = {}) {
  const options = { env: { ...process.env, ...environment } }
  try {
    const { stdout, stderr } = await run(join(requireStackBinaries(), program), args, options)
    return { code: 0, output: stdout + stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, output: stdout + stderr }
  }
}

async function validate(config: string) {
  const folder = mkdtempSync(join(tmpdir(), 'ring2-validate-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const ports = await freePorts()
  const environment = collectorEnvironment({ binaries: '', folder, ports })
  return outcome('otelcol', ['validate', '--config', config], environment)
}

const collectorConfigs = readdirSync(join(otelConfig, 'collector')).filter((name) =>
  name.endsWith('.yaml'),
)

/** Lines that a reader of the log would have to explain. */
function complaints(log: string): string[] {
  return log
    .split('\n')
    .filter((line) => /\t(warn|error|fatal)\t|level=(WARN|ERROR)|deprecat/i.test(line))
    .filter((line) => !/ui assets not embedded|Received an OS signal/.test(line))
}

describe.runIf(stackIsThere())('Shipped configurations', () => {
  test('of the Collector are the three that the documents name', () => {
    expect(collectorConfigs).toEqual(['jaeger-prometheus.yaml', 'minimal.yaml', 'production.yaml'])
  })

  test.each(collectorConfigs)('collector/%s is valid for the real Collector', async (name) => {
    expect(await validate(join(otelConfig, 'collector', name))).toEqual({ code: 0, output: '' })
  })

  test('of the agent in Kubernetes are valid but for the exporter that our small Collector lacks', async () => {
    const text = readFileSync(join(otelConfig, 'kubernetes', 'collector-agent.yaml'), 'utf8')
    const config = parse(text) as {
      exporters: Record<string, object> & { load_balancing?: { protocol: { otlp: object } } }
    }
    const { load_balancing: balancing, ...others } = config.exporters
    expect(balancing).toMatchObject({ routing_key: 'traceID', resolver: { dns: { port: '4317' } } })
    // What it gives to each gateway is the configuration of an OTLP exporter.
    const each = { ...balancing?.protocol.otlp, endpoint: 'localhost:4317' }
    config.exporters = { ...others, 'otlp_grpc/each': each }
    const replaced = stringify(config).replaceAll(/\bload_balancing\b/g, 'otlp_grpc/each')
    expect(await validate(`yaml:${replaced}`)).toEqual({ code: 0, output: '' })
  })

  test('would be refused by the real Collector if they had an unknown key', async () => {
    const { code, output } = await validate('yaml:exporters: {debug: {verbose: true}}')
    expect(code).not.toBe(0)
    expect(output).toContain('verbose')
  })

  test.each(collectorConfigs)(
    'collector/%s starts beside the others, takes nothing amiss and ends in order',
    async (name) => {
      const collectorConfig = join(otelConfig, 'collector', name)
      await using stack = await startTestStack({ collectorConfig })
      const { servers } = stack
      for (const server of Object.values(servers)) expect(server.pid()).toBeGreaterThan(0)
      await stack.stop()
      for (const server of Object.values(servers)) {
        expect(server.pid()).toBeUndefined()
        expect(complaints(readFileSync(server.log, 'utf8'))).toEqual([])
      }
    },
  )

  test('of Prometheus and its alert rules pass promtool', async () => {
    const config = join(otelConfig, 'prometheus', 'prometheus.yml')
    const { code, output } = await outcome('promtool', ['check', 'config', config])
    expect({ code, output }).toMatchObject({ code: 0 })
    expect(output).toContain('SUCCESS')
    expect(output).not.toContain('FAILED')
  })

  test('of Alertmanager pass amtool and route pages apart from tickets', async () => {
    const config = join(otelConfig, 'alertmanager', 'alertmanager.yml')
    expect(await outcome('amtool', ['check-config', config])).toMatchObject({ code: 0 })
    for (const severity of ['page', 'ticket']) {
      const labels = ['alertname=X', 'gen_ai_request_model=m', `severity=${severity}`]
      const route = ['config', 'routes', 'test', `--config.file=${config}`, ...labels]
      expect((await outcome('amtool', route)).output.trim()).toBe(severity)
    }
  })
})
