/** `npm run stack -- build|start|stop|status`: the real servers that watch a model. Loopback only. */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { documentedPorts } from '../exporter/demo/stack/ports.ts'
import { stackUrls } from '../exporter/demo/stack/servers.ts'
import { Ring2Error } from '../exporter/errors.ts'
import { buildStack } from './stack-build.ts'
import { type ServerStatus, serverStatus, startServers, stopServers } from './stack-run.ts'

const usage = `usage: npm run stack -- build                    build the servers, once; prints their folder
       npm run stack -- start [--dir FOLDER]    run Collector, Jaeger, Prometheus, Alertmanager
                              [--collector FILE] [--webhook URL]
       npm run stack -- status [--dir FOLDER]
       npm run stack -- stop [--dir FOLDER]

FOLDER holds data and logs; ~/.local/state/ring2/stack when left out. Alerts are posted to URL, as
Alertmanager's webhook; without it they are only listed. RING2_STACK_DIR names a folder with programs
of your own.
`

function arguments_() {
  return parseArgs({
    allowPositionals: true,
    options: {
      dir: { type: 'string' },
      collector: { type: 'string' },
      webhook: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  })
}

type Values = ReturnType<typeof arguments_>['values']

function stateFolder(values: Values): string {
  const state = process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state')
  return values.dir ?? join(state, 'ring2', 'stack')
}

function lines(servers: readonly ServerStatus[]): string {
  if (servers.length === 0) return 'not started; `npm run stack -- start` starts them\n'
  const state = (one: ServerStatus): string => {
    if (!one.running) return 'ended'
    return one.healthy ? 'healthy' : 'not healthy'
  }
  return servers
    .map((one) => `${one.name.padEnd(13)}${state(one).padEnd(12)}pid ${one.pid}  ${one.log}\n`)
    .join('')
}

function addresses(): string {
  const urls = stackUrls(documentedPorts)
  return `
OTLP            ${urls.otlpGrpc} (gRPC), ${urls.otlpHttp} (HTTP)
Jaeger          ${urls.jaeger}
Prometheus      ${urls.prometheus}
Alertmanager    ${urls.alertmanager}

Run the exporter so that it sends there, and takes the spans that the Collector's tap sends back:

RING2_TELEMETRY_TAP=true OTEL_EXPORTER_OTLP_ENDPOINT=${urls.otlpGrpc} npx ring2-exporter run
`
}

async function start(values: Values): Promise<void> {
  const { collector, webhook } = values
  const servers = await startServers({
    binaries: buildStack(),
    folder: stateFolder(values),
    ...(collector === undefined ? {} : { collectorConfig: collector }),
    ...(webhook === undefined ? {} : { webhookUrl: webhook }),
  })
  process.stdout.write(`${lines(servers)}${addresses()}${alertsGo(webhook)}`)
}

/** Only what this start was told: servers that ran before keep their settings. */
function alertsGo(webhook: string | undefined): string {
  if (webhook !== undefined)
    return `\nAlerts are posted to ${webhook}, by an Alertmanager that this started.\n`
  return `
Alerts are listed in Alertmanager; nobody is told. It posts them to a placeholder,
http://127.0.0.1:9095/alerts, and logs refused connections until something listens there. To be told:
stop, then start with --webhook URL.
`
}

async function status(values: Values): Promise<void> {
  const servers = await serverStatus(stateFolder(values))
  process.stdout.write(lines(servers))
  if (servers.length === 0 || !servers.every((one) => one.healthy)) process.exitCode = 1
  else process.stdout.write(addresses())
}

async function stop(values: Values): Promise<void> {
  const ended = await stopServers(stateFolder(values))
  process.stdout.write(ended.length === 0 ? 'nothing was running\n' : `ended ${ended.join(', ')}\n`)
}

async function main(): Promise<void> {
  const { values, positionals } = arguments_()
  const [command] = positionals
  if (values.help === true) process.stdout.write(usage)
  else if (command === 'build') process.stdout.write(`${buildStack()}\n`)
  else if (command === 'start') await start(values)
  else if (command === 'status') await status(values)
  else if (command === 'stop') await stop(values)
  else {
    const wrong = command === undefined ? '' : `ring2: unknown command ${JSON.stringify(command)}\n`
    process.stderr.write(`${wrong}${usage}`)
    process.exitCode = 2
  }
}

try {
  await main()
} catch (error) {
  if (error instanceof Ring2Error) {
    process.stderr.write(`ring2: ${error.message}\n       ${error.action}\n`)
    process.exitCode = 1
  } else if (error instanceof TypeError && 'code' in error) {
    process.stderr.write(`ring2: ${error.message}\n${usage}`)
    process.exitCode = 2
  } else throw error
}
